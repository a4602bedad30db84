from unittest.mock import Mock

import pytest
from lightning.pytorch import LightningModule, Trainer

from maquette.core.errors import CollapseError
from maquette.systems.scene_collapse import SceneCollapse
from maquette.training.config import CollapseConfig


def watch(opacities: list[float]) -> None:
    watcher = SceneCollapse(CollapseConfig(every=10, patience=30))
    for n, opacity in enumerate(opacities):
        watcher.look(10 * (n + 1), opacity)


@pytest.mark.parametrize(
    ("opacity", "cause"), [(0.0, "empty since step 20"), (1.0, "fills every picture since step 20")]
)
def test_collapse_is_named_after_the_patience(opacity: float, cause: str) -> None:
    watch([0.3, opacity, opacity, opacity])
    with pytest.raises(CollapseError, match=cause) as caught:
        watch([0.3, opacity, opacity, opacity, opacity])
    assert caught.value.exit_code == 1 and caught.value.hint


def test_a_step_of_several_batches_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    watcher = SceneCollapse(CollapseConfig(every=2))
    monkeypatch.setattr(watcher, "look", lambda step, opacity: looked.append(step))
    system = Mock(spec=LightningModule, opacity=0.5)
    trainer = Mock(spec=Trainer, global_step=0)
    watcher.on_train_start(trainer, system)
    for batch in range(12):
        trainer.global_step = (batch + 1) // 3
        watcher.on_train_batch_end(trainer, system, None, None, batch)
    assert looked == [2, 4]


def test_recovery_resets_the_patience() -> None:
    watch([0.0, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0])


def test_a_resumed_run_remembers_since_when_the_scene_is_empty():
    before = SceneCollapse(CollapseConfig(patience=20))
    before.look(10, 0.0)
    after = SceneCollapse(before.cfg)
    after.load_state_dict(before.state_dict())
    with pytest.raises(CollapseError, match="empty since step 10"):
        after.look(30, 0.0)
