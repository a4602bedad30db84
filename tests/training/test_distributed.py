import csv
import os
import signal
import time
from contextlib import nullcontext

import pytest
import torch
import torch.distributed as dist

from maquette.core.collectives import from_leader, mean_over_processes
from maquette.core.config import load_config
from maquette.core.errors import ConfigError
from maquette.core.processes import TERMINATED, is_leader, launched_environment, rank
from maquette.core.registry import find, registry
from maquette.training.distributed import processes_wanted, several_processes, together
from maquette.training.run import run

BRIEF = ["training.snapshot_code=false", "training.loggers=[csv]", "trainer.log_every_n_steps=1"]

ASSET = [
    "preset=smoke",
    "system.prompt_processor.prompt=a red mushroom",
    "trainer.max_steps=3",
    "trainer.limit_test_batches=1.0",
    "data.n_test_views=5",
    "data.eval_height=8",
    "data.eval_width=8",
    "system.loss.lambda_orient=1.0",
    "system.geometry.normal_type=analytic",
    "system.material_type=diffuse-with-point-light-material",
    "system.background_type=neural-environment-map-background",
    "training.finish=[test]",
]  # normals, whose loss counts covered rays, and a background that is not computed in each step

VARIATIONAL = [
    "preset=smoke",
    "system.prompt_processor.prompt=a red mushroom",
    "trainer.max_steps=3",
    "trainer.limit_val_batches=0",
    "training.finish=[]",
    "system.optimizer.args.eps=1.0",
    "system.optimizer.params.geometry.lr=1.0",
    "system.optimizer.params.guidance.lr=10.0",
    "system.renderer.estimator=proposal",
    "system.renderer.prop_optimizer_config={name: Adam, args: {lr: 10.0, eps: 1.0}}",
    "system.renderer.proposal_network_config.encoding_config={otype: HashGrid, n_levels: 2}",
]  # an adapter and a proposal network, which has an optimizer of its own; none makes steps of rounding

CAPTIONS = [
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
    "system.width=16",
    "system.layers=1",
    "system.heads=2",
    "system.scheduler.milestones=[2]",
    "data.eval_batch_size=64",
]


def config(recipe, words, folder, batch):
    return load_config(recipe, [*words, *BRIEF], {"run_dir": str(folder), "data.batch_size": batch})


def logged(folder, name):
    *_, newest = sorted(folder.glob("csv_logs/version_*/metrics.csv"))
    with newest.open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_two_processes_make_the_asset_of_one_with_twice_the_batch(several, tmp_path):
    run(config("first-light", ASSET, tmp_path / "one", 2), "train")
    both = config("first-light", ASSET, tmp_path / "two", 1)
    assert several.in_processes(lambda: run(both, "train")) == [0, 0]
    several.assert_same_weights(tmp_path / "one", tmp_path / "two")
    # each process has drawn some of the views; all are there, and are the same
    names = sorted(path.name for path in (tmp_path / "one" / "save" / "it3-test").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two" / "save" / "it3-test").iterdir())
    assert names == [f"{i}.png" for i in range(5)]
    assert (tmp_path / "two" / "save" / "it3-test.mp4").is_file()


def test_what_learns_beside_the_asset_is_the_same_too(several, tmp_path):
    run(config("prolificdreamer", VARIATIONAL, tmp_path / "one", 2), "train")
    both = config("prolificdreamer", VARIATIONAL, tmp_path / "two", 1)
    assert several.in_processes(lambda: run(both, "train")) == [0, 0]
    several.assert_same_weights(tmp_path / "one", tmp_path / "two")
    # and it has learned: an adapter begins with nothing, a grid with less than 1e-4
    weights = several.state(tmp_path / "one")["state_dict"]
    adapter = [value for name, value in weights.items() if "lora_B" in name]
    assert adapter and max(value.abs().max() for value in adapter) > 1e-3
    assert weights["renderer.prop_net.encoding.encoding.table"].abs().max() > 1e-3


def test_a_resumed_run_of_two_processes_is_the_undisturbed_one_of_one(several, tmp_path):
    run(config("caption-model", CAPTIONS, tmp_path / "one", 2), "train")
    folder = tmp_path / "two"
    begun = config("caption-model", [*CAPTIONS, "training.finish=[]"], folder, 1)
    begun.trainer.max_steps = 2
    assert several.in_processes(lambda: run(begun, "train")) == [0, 0]
    assert several.state(folder)["global_step"] == 2
    rest = config("caption-model", CAPTIONS, folder, 1)
    assert several.in_processes(lambda: run(rest, "train", resume=folder)) == [0, 0]
    several.assert_same_weights(tmp_path / "one", folder)
    # one process has exported; an evaluation is a mean over both
    assert (folder / "caption-model" / "model.safetensors").is_file()
    assert logged(folder, "val/next_token")[-1] == pytest.approx(
        logged(tmp_path / "one", "val/next_token")[-1], rel=0.02
    )


def test_all_write_to_the_folder_of_the_first_whose_clock_counts(several, toy, tmp_path):
    def started_apart():
        cfg = toy()
        cfg.run_dir, cfg.exp_root_dir, cfg.tag = None, str(tmp_path / "outputs"), "apart"
        cfg.timestamp = f"@{rank()}"
        return run(cfg, "train")

    assert several.in_processes(started_apart) == [0, 0]
    runs = list((tmp_path / "outputs").glob("*/*"))
    assert [path.name for path in runs] == ["apart@0"]
    assert [path.name for path in (runs[0] / "csv_logs").iterdir()] == ["version_0"]


def test_stages_are_shared_too(several, toy, tmp_path):
    def staged():
        cfg = toy()
        cfg.stages = [{"name": "coarse"}, {"name": "fine", "trainer": {**cfg.trainer, "max_steps": 6}}]
        result = run(cfg, "train")
        assert result.global_step == 6 and result.files == [tmp_path / "run" / "answer.txt"]

    assert several.in_processes(staged) == [0, 0]
    assert (tmp_path / "run" / "answer.txt").is_file()


@pytest.mark.parametrize("how", ["raises", "is killed"])
def test_who_loses_another_process_ends_soon_and_says_so(several, toy, tmp_path, how):
    cfg = toy()
    moment = tmp_path / "moment"

    class Breaking(find("toy-system", "system")):
        def training_step(self, batch, batch_idx):
            if self.global_step == 2 and rank() == 1:
                moment.write_text(str(time.time()))
                if how == "is killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise ValueError("the sky fell")
            return super().training_step(batch, batch_idx)

    registry.register("breaking-system", "system")(Breaking)
    cfg.system_type = "breaking-system"
    codes = several.in_processes(lambda: run(cfg, "train"))
    assert time.time() - float(moment.read_text()) < 30
    assert codes == [several.LOST, several.FAILED if how == "raises" else -signal.SIGKILL]
    if how == "raises":  # the error that is kept is that of the process that had it
        assert "the sky fell" in (tmp_path / "run" / "error.log").read_text()


def test_who_waits_for_another_process_can_be_ended(several, tmp_path):
    def waits():
        with together():
            (tmp_path / str(rank())).write_text(str(os.getpid()))
            if is_leader():
                dist.barrier()  # which the other never reaches
            while not (tmp_path / "0").is_file():
                time.sleep(0.05)
            time.sleep(0.5)
            os.kill(int((tmp_path / "0").read_text()), signal.SIGTERM)
            time.sleep(1.5)
            os._exit(0)

    begin = time.monotonic()
    assert several.in_processes(waits)[0] == TERMINATED
    assert time.monotonic() - begin < 30


def test_a_mean_is_that_of_the_whole_batch(several):
    values = torch.tensor([1.0, 2.0, 3.0, 10.0])

    def work():
        with together():
            part = (values[:3] if is_leader() else values[3:]).clone().requires_grad_()
            mean = mean_over_processes(part.sum(), len(part))
            mean.backward()
            found = mean.detach().clone()
            dist.all_reduce(found)
            assert float(found) / 2 == pytest.approx(4.0)  # as DDP averages
            assert part.grad.tolist() == pytest.approx([0.5] * len(part))
            assert from_leader({"rank": rank()}) == {"rank": 0}

    assert several.in_processes(work) == [0, 0]


def test_alone_nothing_is_asked_of_others():
    assert float(mean_over_processes(torch.tensor(6.0), 3)) == 2.0
    assert float(mean_over_processes(torch.tensor(0.0), 0)) == 0.0
    assert from_leader("mine") == "mine"


@pytest.mark.parametrize("devices, count", [(1, 1), ("2", 2), (3, 3), ("auto", 1), (-1, 1), ([0], 1)])
def test_devices_are_processes(devices, count, monkeypatch):
    monkeypatch.setattr("maquette.training.distributed.is_gpu", lambda device: False)
    assert processes_wanted({"devices": devices}) == count


def test_one_process_refuses_to_be_several():
    with pytest.raises(ConfigError, match="torchrun --nproc-per-node 2"):
        several_processes({"devices": 2}, unused=False, shares=True)
    assert several_processes({"strategy": "ddp"}, unused=False, shares=True) == {"strategy": "auto"}


def test_what_was_started_counts(monkeypatch):
    for name, value in launched_environment(1, 2, 1).items():
        monkeypatch.setenv(name, value)
    given = several_processes({"strategy": "ddp"}, unused=True, shares=True)
    assert (given["devices"], given["num_nodes"], given["use_distributed_sampler"]) == (2, 1, False)
    assert given["strategy"]._ddp_kwargs == {"find_unused_parameters": True, "broadcast_buffers": False}
    with pytest.raises(ConfigError, match="as many as were started"):
        several_processes({"devices": 4}, unused=True, shares=True)
    with pytest.raises(ConfigError, match="ddp_find_unused_parameters_true"):
        several_processes({"strategy": "fsdp"}, unused=True, shares=True)


@pytest.mark.parametrize("recipe", ["gaussians", "playground-2d"])
def test_what_one_process_has_alone_is_refused_before_a_folder_is_made(recipe, tmp_path, monkeypatch):
    for name, value in launched_environment(0, 2, 1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("maquette.training.run.together", nullcontext)
    cfg = load_config(recipe, ["system.prompt_processor.prompt=a toy"], {"run_dir": str(tmp_path / "run")})
    with pytest.raises(ConfigError, match=r"trainer\.devices"):
        run(cfg, "train")
    assert not (tmp_path / "run").exists()
