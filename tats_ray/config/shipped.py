"""The configurations that come with the package, by name: `recipe:videomae_ucf101`.

They are the files of the repository's `configs/`. `tats_ray/configs` is a link to that folder; a
wheel holds the files in its place.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from tats_ray.errors import ConfigError

_FOLDER = Path(__file__).resolve().parents[1] / "configs"
# The first part of a name -> where its files are, and thereby which command reads them: recipes and
# presets are for pretrain, the others for the commands of their name.
KINDS = {
    "recipe": ("*.yaml", "recipes/*.yaml"),
    "preset": ("presets/*.yaml",),
    "finetune": ("finetune/*.yaml",),
    "study": ("studies/*.yaml",),
}
# A path has a slash or a suffix.
_NAME = re.compile(r"(\w+):([\w-]*)")


def config_path(given: str | Path) -> Path:
    """The file that a name stands for; anything else is a path already.

    Raises:
        ConfigError: nothing that is shipped has this name; gives the closest names.
    """
    name = _NAME.fullmatch(str(given))
    if name is None:
        return Path(given)
    kind, stem = name.groups()
    if kind not in KINDS:
        raise ConfigError(
            f"{given}: '{kind}' is no kind of configuration; "
            f"known: {', '.join(f'{known}:NAME' for known in KINDS)}, or give a YAML file"
        )
    files = _files(kind)
    if stem not in files:
        close = difflib.get_close_matches(stem, files, n=3)
        names = ", ".join(f"{kind}:{one}" for one in close or files)
        raise ConfigError(
            f"{given}: no such {kind}; {'did you mean' if close else 'known:'} {names}"
            f"{'?' if close else ''}"
        )
    return files[stem]


def shipped_names(kind: str) -> list[str]:
    """All names of a kind, such as `recipe:demo`."""
    return [f"{kind}:{stem}" for stem in _files(kind)]


def _files(kind: str) -> dict[str, Path]:
    found = (path for pattern in KINDS[kind] for path in sorted(_FOLDER.glob(pattern)))
    return {path.stem: path for path in found}
