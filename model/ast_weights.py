"""Pretrained weights of the Audio Spectrogram Transformer, fitted to another grid of patches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.attention import attention_name
from model.weights import first_line, misfit
from utils.errors import UserError
from utils.strict_json import read_json

PATCH = 16


class Size(NamedTuple):
    """One of the sizes of the paper: dimensions, attention heads, and the DeiT that it started from."""

    hidden: int
    heads: int
    deit: str


SIZES = {
    "tiny224": Size(192, 3, "deit_tiny_distilled_patch16_224"),
    "small224": Size(384, 6, "deit_small_distilled_patch16_224"),
    "base224": Size(768, 12, "deit_base_distilled_patch16_224"),
    "base384": Size(768, 12, "deit_base_distilled_patch16_384"),
}


class Geometry(NamedTuple):
    """Steps between patches, and the input they are cut from."""

    fstride: int
    tstride: int
    input_fdim: int
    input_tdim: int

    @property
    def grid(self) -> tuple[int, int]:
        """Patches in frequency and in time."""
        return (self.input_fdim - PATCH) // self.fstride + 1, (self.input_tdim - PATCH) // self.tstride + 1

    def problem(self) -> str | None:
        """Why there is no such grid; None where there is one."""
        if min(self.fstride, self.tstride) < 1:
            return f"fstride and tstride are at least 1, not {self.fstride} and {self.tstride}"
        if min(self.input_fdim, self.input_tdim) < PATCH:
            dims = f"{self.input_fdim} and {self.input_tdim}"
            return f"input_fdim and input_tdim are at least {PATCH}, one patch, not {dims}"
        return None


def ast_config(size: Size, geometry: Geometry) -> Any:
    """The `transformers.ASTConfig` of a size and a geometry; 12 layers and the rest by its defaults."""
    from transformers import ASTConfig

    return ASTConfig(
        hidden_size=size.hidden,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.hidden,
        patch_size=PATCH,
        frequency_stride=geometry.fstride,
        time_stride=geometry.tstride,
        num_mel_bins=geometry.input_fdim,
        max_length=geometry.input_tdim,
        attn_implementation=attention_name(),
    )


def resize_position_embeddings(position: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Position embeddings for another grid of patches: cut from the middle or interpolated, each axis by itself.

    Source: arXiv 2104.01778, section 2.2, and the authors' code.

    Args:
        position: ``(1, 2 + freq * time, hidden)``, the class and the distillation token first.
        old: ``(freq, time)`` patches of it.
        new: ``(freq, time)`` patches wanted.

    Returns:
        ``(1, 2 + freq * time, hidden)`` for the new grid. An axis that shrinks is cut, one that grows is
        interpolated linearly.
    """
    tokens, patches = position[:, :2], position[:, 2:]
    picture = patches.transpose(1, 2).unflatten(2, old)
    for axis, (before, after) in enumerate(zip(old, new, strict=True), start=2):
        if after <= before:
            picture = picture.narrow(axis, before // 2 - after // 2, after)
    if tuple(picture.shape[2:]) != tuple(new):
        picture = F.interpolate(picture, size=new, mode="bilinear")
    return torch.cat([tokens, picture.flatten(2).transpose(1, 2)], dim=1)


def from_deit(state: dict[str, Tensor], source: Path) -> tuple[dict[str, Tensor], tuple[int, int]]:
    """Tensors of timm's distilled DeiT under the names of `transformers.ASTModel`, and their grid of patches.

    The two heads are dropped. The patch embedding is summed over red, green and blue, as in the authors' code: that
    is what DeiT computes from a spectrogram shown as a grey picture. Names that DeiT does not have stay, for the
    caller to find.

    Raises:
        UserError: the position embeddings are missing or are not those of a square picture and two tokens.
    """
    position = state.get("pos_embed")
    patches = position.shape[1] - 2 if position is not None and position.ndim == 3 else 0
    side = math.isqrt(max(patches, 0))
    if side == 0 or side * side != patches:
        hint = "name the weights of one of " + ", ".join(size.deit for size in SIZES.values())
        raise UserError(source, "does not hold the weights of a distilled DeiT", hint)
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith(("head.", "head_dist.")):
            continue
        if name == "patch_embed.proj.weight" and value.ndim == 4:
            value = value.sum(dim=1, keepdim=True)
        new_name = _deit_name(name)
        if ".attn.qkv." in name and value.ndim:
            for part, third in zip(("q_proj", "k_proj", "v_proj"), value.tensor_split(3), strict=True):
                renamed[new_name.replace("qkv", part)] = third
        else:
            renamed[new_name] = value
    return renamed, (side, side)


_DEIT_NAMES = {
    "cls_token": "embeddings.cls_token",
    "dist_token": "embeddings.distillation_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}


def _deit_name(name: str) -> str:
    if name in _DEIT_NAMES:
        return _DEIT_NAMES[name]
    for deit, ast in (
        ("blocks.", "layers."),
        (".norm1.", ".layernorm_before."),
        (".norm2.", ".layernorm_after."),
        (".attn.proj.", ".attention.o_proj."),
        (".attn.", ".attention."),
    ):
        name = name.replace(deit, ast)
    return name


def read_folder(folder: Path, size: Size) -> tuple[dict[str, Tensor], tuple[int, int]]:
    """The tensors of `transformers.ASTModel` in a folder that transformers saved, and their grid of patches.

    A classifier head in the folder is left out.

    Raises:
        UserError: the folder cannot be read, is of another size, or has tensors too few, too many or of another
            shape, which are listed.
    """
    from safetensors import SafetensorError
    from transformers import ASTForAudioClassification

    geometry = _folder_geometry(folder / "config.json", size)
    try:
        with _quiet_transformers():
            saved, report = ASTForAudioClassification.from_pretrained(
                folder,
                config=ast_config(size, geometry),
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # they are in the report, and refused below
                output_loading_info=True,
            )
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        what = f"no AST weights can be read from it ({first_line(error)})"
        raise UserError(folder, what, "name a folder with config.json and model.safetensors") from error
    mismatched = {
        name: f"{name} {tuple(found)} instead of {tuple(own)}" for name, found, own in report["mismatched_keys"]
    }
    problem = misfit(
        *(
            [text for name, text in names.items() if not name.startswith("classifier.")]
            for names in (
                {name: name for name in report["missing_keys"]},
                {name: name for name in report["unexpected_keys"]},
                mismatched,
            )
        )
    )
    if problem:
        raise UserError(folder, f"the weights do not fit, {problem}", "use a folder that transformers saved whole")
    return saved.audio_spectrogram_transformer.state_dict(), geometry.grid


def _folder_geometry(path: Path, size: Size) -> Geometry:
    """The geometry in a folder's config.json, whose network must be the one of `size`."""
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(path, f"cannot be read ({error})", "name a folder saved by transformers") from error
    wanted = ast_config(size, Geometry(10, 10, 128, 1024)).to_dict()
    if not isinstance(found, dict) or found.get("model_type") != wanted["model_type"]:
        raise UserError(path, f"does not describe an {wanted['model_type']}", "name a folder with an AST")
    for key in (
        *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        *("hidden_act", "patch_size", "qkv_bias", "layer_norm_eps"),
    ):
        if found.get(key, wanted[key]) != wanted[key]:
            fitting = " or ".join(name for name, other in SIZES.items() if other.hidden == found.get("hidden_size"))
            hint = f"set arch.args.model_size to {fitting}" if fitting else "use a folder of one of the model sizes"
            raise UserError(path, f"{key} is {found[key]}, the model_size asked for has {wanted[key]}", hint)
    keys = ("frequency_stride", "time_stride", "num_mel_bins", "max_length")
    values = [found.get(key, wanted[key]) for key in keys]
    # A larger network than that would not fit into memory.
    if not all(type(value) is int and value <= 10_000 for value in values) or Geometry(*values).problem():
        raise UserError(path, f"{', '.join(keys)} are {values}", "fetch it again")
    return Geometry(*values)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bar and no table of tensors: what is wrong with a folder is said in our own one line."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
