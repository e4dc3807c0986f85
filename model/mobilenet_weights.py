"""The AudioSet weights of EfficientAT's MobileNets: where they are published, and their names."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from model.weights import CONFIG_KEY, first_line, local_path, read_state_dict
from utils.errors import UserError
from utils.files import file_digest

# Where several checkouts of this project share one copy of what is not in the repository.
_SHARED = Path(__file__).resolve().parents[2] / "shared" / "weights"
_RELEASE = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/"


class Published(NamedTuple):
    """A file of the release, and its sha256 where we have seen the file."""

    name: str
    sha256: str | None

    @property
    def url(self) -> str:
        """Its address."""
        return _RELEASE + self.name


PUBLISHED = {
    "mn04_as": Published("mn04_as_mAP_432.pt", "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c"),
    "mn10_as": Published("mn10_as_mAP_471.pt", None),
}


def audioset_state(model_size: str, weights: str) -> tuple[dict[str, Tensor], Path]:
    """The published tensors under the names of `MobileNetAS`, and the file that they are from.

    Args:
        model_size: a key of `PUBLISHED`.
        weights: "hub" or a local file.

    Raises:
        UserError: there is no such file, it cannot be fetched, or it is damaged.
    """
    path = _published_file(PUBLISHED[model_size]) if weights == "hub" else local_path(weights)
    # The authors can squeeze several axes at once, each a layer of a list; these networks squeeze one.
    return {name.replace(".conc_se_layers.0.", "."): value for name, value in read_state_dict(path).items()}, path


def _published_file(file: Published) -> Path:
    """The file in PyTorch's cache or in `_SHARED`, fetched unless it is there; its checksum is right, where known."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / file.name
    path = next((path for path in (cached, _SHARED / file.name) if path.is_file()), cached)
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(file.url, str(path), file.sha256, progress=False)
        except (OSError, RuntimeError) as error:
            what = f"{file.name} cannot be fetched ({first_line(error)})"
            hint = f"fetch {file.url} elsewhere and put it at {path}, or set {CONFIG_KEY} to the path of the file"
            raise UserError(CONFIG_KEY, what, hint) from error
    if file.sha256 and file_digest(path) != file.sha256:
        raise UserError(path, "is damaged: its checksum is not that of the release", f"fetch {file.url} again")
    return path
