"""Audio Spectrogram Transformer, on the implementation of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from base.base_model import BaseModel
from model import architectures
from model.ast_weights import (
    PATCH,
    SIZES,
    Geometry,
    Size,
    ast_config,
    from_deit,
    read_folder,
    resize_position_embeddings,
)
from model.weights import CONFIG_KEY, hub_files, load_exactly, local_path, read_state_dict
from utils.errors import UserError

AUDIOSET_REPO = "MIT/ast-finetuned-audioset-10-10-0.4593"


@architectures.register()
class ASTModel(BaseModel):
    """Audio Spectrogram Transformer (Gong et al. 2021, arXiv 2104.01778).

    Patches of 16x16, 12 layers; the class and the distillation token are averaged, normalised and classified.
    The input is taken as it comes; for AudioSet weights normalise it to mean 0 and standard deviation 0.5.
    A patch of an input with several channels goes through all of them, so that these cost no further patches.

    Args:
        label_dim: number of classes.
        fstride: step between patches in frequency; below 16 they overlap.
        tstride: the same in time.
        input_fdim: frequency bins (or channels) of the input.
        input_tdim: frames of the input.
        imagenet_pretrain: start from the ImageNet weights of the DeiT of that size.
        audioset_pretrain: start from AudioSet weights, which themselves started from ImageNet; goes before
            `imagenet_pretrain`. On the hub there are such weights for base384 only.
        model_size: 192, 384 or 768 dimensions; base224 and base384 differ in their ImageNet weights alone.
        weights: where pretrained weights come from. "hub"; or, for AudioSet, a local folder as transformers saves
            it, with config.json and model.safetensors; or, for ImageNet, a local file (.safetensors, .pth, .pt)
            with the state dict of timm's distilled DeiT. None gives random numbers, as does "hub" with two false
            flags.

    Raises:
        UserError: weights were asked for and cannot be had, or do not fit, or no flag says what they are; the input
            is smaller than a patch.
    """

    def __init__(
        self,
        label_dim: int,
        fstride: int = 10,
        tstride: int = 10,
        input_fdim: int = 128,
        input_tdim: int = 768,
        imagenet_pretrain: bool = False,
        audioset_pretrain: bool = False,
        model_size: Literal["tiny224", "small224", "base224", "base384"] = "base384",
        weights: str | None = "hub",
        indim: int | None = None,
    ) -> None:
        super().__init__()
        import transformers

        geometry = Geometry(fstride, tstride, input_fdim, input_tdim)
        if problem := geometry.problem():
            raise UserError("arch.args", problem)
        if weights not in (None, "hub") and not (audioset_pretrain or imagenet_pretrain):
            what = f"is {weights!r}, but no pretraining is asked for"
            raise UserError(CONFIG_KEY, what, "set audioset_pretrain or imagenet_pretrain to true, or leave it out")
        self.geometry = geometry
        size = SIZES[model_size]
        config = ast_config(size, geometry)
        self.backbone = transformers.ASTModel(config)
        # transformers has no loss for this class, and warns whenever its attributes are looked at, as tracing does.
        self.backbone.loss_type = "ForSequenceClassification"
        if indim is not None:
            self.backbone.embeddings.patch_embeddings = _ChannelPatches(indim, size.hidden, (fstride, tstride))
        self.head = nn.Sequential(
            nn.LayerNorm(size.hidden, eps=config.layer_norm_eps), nn.Linear(size.hidden, label_dim)
        )
        if weights is not None and audioset_pretrain:
            folder = _audioset_folder(model_size) if weights == "hub" else local_path(weights, folder=True)
            self._load(*read_folder(folder, size), geometry, folder)
        elif weights is not None and imagenet_pretrain:
            path = _deit_file(size) if weights == "hub" else local_path(weights)
            self._load(*from_deit(read_state_dict(path), path), geometry, path)
        else:
            # transformers starts these at zero, where the two tokens would stay equal for ever.
            embeddings = self.backbone.embeddings
            for values in (embeddings.cls_token, embeddings.distillation_token, embeddings.position_embeddings):
                nn.init.trunc_normal_(values, std=0.02)

    def _load(self, state: dict[str, Tensor], grid: tuple[int, int], geometry: Geometry, source: Path) -> None:
        name = "embeddings.position_embeddings"
        fitted = {name: resize_position_embeddings(state[name], grid, geometry.grid)}
        patches = "embeddings.patch_embeddings.projection.weight"
        indim = self.backbone.get_parameter(patches).shape[1]
        if (one := state.get(patches)) is not None and one.ndim == 4 and one.shape[1] == 1:
            fitted[patches] = one.expand(-1, indim, -1, -1) / indim
        load_exactly(self.backbone, state | fitted, source)

    def resized(self, state: Mapping[str, Tensor], args: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """With position embeddings for this one's patches, see `resize_position_embeddings`."""
        name = "backbone.embeddings.position_embeddings"
        then = Geometry(*(args[key] for key in Geometry._fields))
        if then.problem() or name not in state:
            return state
        freq, time = then.grid
        if state[name].ndim != 3 or state[name].shape[1] != 2 + freq * time:
            return state
        return {**state, name: resize_position_embeddings(state[name], (freq, time), self.geometry.grid)}

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, label_dim)`` of ``(batch, input_tdim, input_fdim)``.

        With `indim` of ``(batch, indim, input_fdim, input_tdim)``.
        """
        return self.head(self.backbone(x).pooler_output)

    @classmethod
    def input_problem(cls, args: Mapping[str, Any], shape: Sequence[int]) -> str | None:
        names = ("input_tdim", "input_fdim") if args["indim"] is None else ("indim", "input_fdim", "input_tdim")
        wanted = tuple(args[name] for name in names)
        if tuple(shape) != wanted:
            return f"ASTModel takes ({', '.join(names)}) = {wanted}, the items are {tuple(shape)}"
        return Geometry(args["fstride"], args["tstride"], args["input_fdim"], args["input_tdim"]).problem()


class _ChannelPatches(nn.Module):
    """The patch embedding of transformers, for pictures of several channels."""

    def __init__(self, indim: int, hidden: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.projection = nn.Conv2d(indim, hidden, PATCH, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, indim, freq, time)`` to ``(batch, patches, hidden)``, those of one frequency side by side."""
        return self.projection(x).flatten(2).transpose(1, 2)


def _audioset_folder(model_size: str) -> Path:
    if model_size != "base384":
        what = f"AudioSet weights are on the hub for base384, not for {model_size}"
        raise UserError("arch.args.model_size", what, f'use "base384", or name a local folder in {CONFIG_KEY}')
    config, _ = hub_files(AUDIOSET_REPO, ["config.json", "model.safetensors"])
    return config.parent


def _deit_file(size: Size) -> Path:
    import timm

    (path,) = hub_files(timm.get_pretrained_cfg(size.deit).hf_hub_id, ["model.safetensors"])
    return path
