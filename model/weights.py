"""Pretrained weights: from the hub or from disk, and every tensor accounted for.

What was asked for and cannot be had is a `UserError`; no network ever trains from scratch without being told to.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from utils.checkpoint import is_state_dict, load_tensors
from utils.errors import UserError

CONFIG_KEY = "arch.args.weights"
_LISTED = 20  # tensor names an error spells out


def hub_files(repo_id: str, filenames: Sequence[str]) -> list[Path]:
    """Local paths of files of a Hugging Face repository, fetched unless they are in its cache.

    Raises:
        UserError: they cannot be fetched; says which files to fetch and where to put them.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.utils import httpx

    paths = []
    for filename in filenames:
        path = try_to_load_from_cache(repo_id, filename)
        if not isinstance(path, str):
            try:
                # One request first: without a network hf_hub_download would go on trying for half a minute.
                get_hf_file_metadata(hf_hub_url(repo_id, filename))
                path = hf_hub_download(repo_id, filename)
            except (OSError, httpx.HTTPError) as error:
                what = f"{filename} of {repo_id} cannot be fetched from the hub ({first_line(error)})"
                urls = " and ".join(hf_hub_url(repo_id, name) for name in filenames)
                where = "the path of the file" if len(filenames) == 1 else "the folder with these files"
                raise UserError(CONFIG_KEY, what, f"fetch {urls} elsewhere and set {CONFIG_KEY} to {where}") from error
        paths.append(Path(path))
    return paths


def local_path(weights: str, folder: bool = False) -> Path:
    """The file (or folder) that a config's `weights` names.

    Raises:
        UserError: there is none.
    """
    path = Path(weights).expanduser()
    if not (path.is_dir() if folder else path.is_file()):
        kind = "folder" if folder else "file"
        raise UserError(CONFIG_KEY, f"there is no {kind} {weights}", f'name a {kind} with weights, "hub" or null')
    return path


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of one written by torch.save, on the CPU.

    A state dict below the key `model` or `state_dict`, as DeiT and many others publish it, is taken from there.

    Raises:
        UserError: the file holds no state dict.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        try:
            return load_file(path, device="cpu")
        except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
            raise UserError(path, f"is not a readable weights file ({first_line(error)})", "fetch it again") from error
    state = load_tensors(path, "is not a readable weights file", "fetch it again")
    for wrapper in ("model", "state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not is_state_dict(state):
        raise UserError(path, "holds no state dict", "name a file with the names and tensors of a network")
    return dict(state)


def misfit(missing: Iterable[str] = (), unexpected: Iterable[str] = (), other_shape: Iterable[str] = ()) -> str:
    """One clause that lists the tensors that do not fit; empty where all do."""
    parts = []
    for kind, found in (("missing", missing), ("unexpected", unexpected), ("of another shape", other_shape)):
        if names := sorted(found):
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            parts.append(f"{kind}: {', '.join(names[:_LISTED])}{more}")
    return "; ".join(parts)


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Load a state dict in which every tensor must have its place, and every place its tensor.

    The batch counters of batch normalisation, which older files lack and which only cumulative averages use,
    may be missing.

    Raises:
        UserError: names `source` and the tensors that are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    problem = misfit(
        (name for name in own.keys() - state.keys() if not name.endswith("num_batches_tracked")),
        state.keys() - own.keys(),
        (
            f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own.keys() & state.keys()
            if own[name].shape != state[name].shape
        ),
    )
    if problem:
        raise UserError(source, f"the weights do not fit, {problem}", "use weights of this very architecture")
    module.load_state_dict(state, strict=False)


def without_weights(architecture: type, args: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments that build the same network with nothing loaded.

    For a checkpoint, which brings all tensors itself: restoring it must need neither the hub nor the local file.
    """
    takes_weights = "weights" in inspect.signature(architecture).parameters
    return {**args, "weights": None} if takes_weights else dict(args)


def first_line(error: BaseException) -> str:
    """What an error says, without what follows it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
