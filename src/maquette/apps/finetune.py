"""``maquette finetune lora|dreambooth``: a few pictures in, a model that knows what they show out."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from maquette.apps.generate import positive
from maquette.apps.running import add_output_arguments, execute, load
from maquette.core.config import ExperimentConfig
from maquette.core.errors import UserError
from maquette.core.log import get_logger
from maquette.core.paths import EMBEDDED_PRIOR
from maquette.core.recipes import recipe_path

ACCEPTS_OVERRIDES = True
LEARNING_RATES = {"lora": 1e-4, "dreambooth": 5e-6}
"""For models of the usual size; the recipes have those of the embedded prior."""

SHOWN = 8
"""Settings that a message lists."""

NO_THING = frozenset(
    "a above an and are as at before behind below beside between but by for from has in inside into is it "
    "its near next of off on onto or out outside over that the this to under up was which while with "
    "without".split()
)
"""Words that say nothing about what a picture shows, so that no new word can begin as one."""

log = get_logger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.epilog = (
        "examples:\n"
        '  maquette finetune lora --images photos --prompt "a photo of <new1> mug" --out my-mug\n'
        '  maquette generate "a <new1> mug" --lora my-mug\n'
        '  maquette finetune dreambooth --images photos --prompt "a photo of <new1> mug" \\\n'
        '      --class-prompt "a photo of a mug" --prior MODEL --out my-model\n'
        '  maquette generate "a <new1> mug" --prior my-model/pipeline\n\n'
        "A picture's own caption is NAME.txt beside it, or a line of metadata.jsonl; {} is the prompt.\n"
        "A word in angle brackets is new: it begins with the meaning of --init-word, and learns another.\n"
        "The same command again, with the same --out, continues a run that was stopped."
    )
    parser.add_argument(
        "method", choices=tuple(LEARNING_RATES), help="an adapter, or every weight of the UNet"
    )
    parser.add_argument("--images", required=True, metavar="DIR", help="PNG and JPEG pictures of one thing")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="caption of the pictures")
    parser.add_argument("--prior", default=EMBEDDED_PRIOR, metavar="MODEL", help="what learns (%(default)s)")
    parser.add_argument(
        "--init-word", metavar="WORD", help="what a new word begins as (default: the word after it)"
    )
    text = "a caption that must look as before (prior preservation); may be repeated"
    parser.add_argument("--class-prompt", action="append", default=None, metavar="TEXT", help=text)
    parser.add_argument("--class-pictures", type=positive, metavar="N", help="pictures of these captions")
    parser.add_argument("--steps", type=positive, metavar="N", help="optimisation steps")
    parser.add_argument("--batch", type=positive, metavar="N", help="pictures a step")
    parser.add_argument("--lr", type=float, metavar="X", help="learning rate")
    parser.add_argument("--rank", type=positive, metavar="N", help="of the adapter")
    parser.add_argument("--target", action="append", default=None, metavar="LAYER", help="layers it changes")
    parser.add_argument("--text-encoder", action="store_true", help="the text encoder trains too")
    parser.add_argument("--flip", action="store_true", help="mirrored pictures show the thing too")
    parser.add_argument(
        "--view-words", action="store_true", help="front, left, high ... in file names belong to the captions"
    )
    parser.add_argument(
        "--sample", action="append", default=None, metavar="TEXT", help="captions of the sheets"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="another seed")
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Train, or go on with what was stopped, and print where the result is."""
    recipe = f"finetune-{args.method}"
    cfg = load(content_of(recipe), args.overrides, settings(args), args)
    return execute(cfg, "train", args, raw=recipe, resume=stopped(cfg, args))


def content_of(recipe: str) -> dict[str, Any]:
    """A shipped recipe without its new words: those of a command line take their place, and mappings are
    merged."""
    content: Any = OmegaConf.to_container(OmegaConf.load(recipe_path(recipe)), resolve=False)
    del content["system"]["new_words"]
    return dict(content)


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The keys of the recipe that the options stand for; None where the recipe decides.

    Raises:
        UserError: nobody says what a new word begins as.
    """
    if args.method == "dreambooth" and (args.rank or args.target):
        raise UserError("--rank and --target belong to an adapter.", hint="maquette finetune lora")
    own = args.prior == EMBEDDED_PRIOR
    return {
        "data.images": args.images,
        "data.prompt": args.prompt,
        "data.flip": args.flip or None,
        "data.view_words": args.view_words or None,
        "data.batch_size": args.batch,
        "system.pretrained_model_name_or_path": args.prior,
        "system.new_words": new_words(args.prompt, args.init_word),
        "system.class_prompts": args.class_prompt or (None if own else []),
        "system.class_pictures": args.class_pictures,
        "system.sample_prompts": args.sample,
        "system.sample_scale": None if own else 7.5,
        "system.rank": args.rank,
        "system.target_modules": args.target,
        "system.train_text_encoder": args.text_encoder or None,
        "system.optimizer.args.lr": args.lr or (None if own else LEARNING_RATES[args.method]),
        "trainer.max_steps": args.steps,
        "seed": args.seed,
    }


def new_words(prompt: str, init_word: str | None) -> dict[str, str]:
    """The words in angle brackets of a prompt, each with what it begins as.

    Raises:
        UserError: a new word is followed by none that says what the pictures show, and none was given.
    """
    found = {}
    for match in re.finditer(r"(<[^<>\s]+>)(?:\s+(\w[\w-]*))?", prompt):
        word, following = match.groups()
        if not init_word and (following is None or following.lower() in NO_THING):
            raise UserError(
                f"What does {word} begin as? "
                + (f"{following!r} is no thing." if following else "No word follows it in the prompt."),
                hint="--init-word WORD: a word that the model knows, for what the pictures show",
            )
        found[word] = init_word or following
    return found


def stopped(cfg: ExperimentConfig, args: argparse.Namespace) -> Path | None:
    """The folder of the same run where it was begun earlier and not finished; None otherwise.

    Raises:
        UserError: what was begun there has other settings.
    """
    from maquette.training.resuming import changed_settings
    from maquette.training.run_folder import RunFolder

    folder = RunFolder(Path(cfg.trial_dir))
    if args.out is None or args.overwrite or not folder.is_run or _is_done(folder.root / "run.json"):
        return None
    changes = changed_settings(folder, cfg)
    if changes:
        raise UserError(
            f"The folder {folder.root} holds a run with other settings.",
            changes[:SHOWN],
            "choose another --out, replace the run with --overwrite, or continue it as it was with "
            f"maquette launch --resume {folder.root}",
        )
    log.info("continuing the run in %s", folder.root)
    return folder.root


def _is_done(record: Path) -> bool:
    return record.is_file() and json.loads(record.read_text(encoding="utf-8"))["status"] == "done"
