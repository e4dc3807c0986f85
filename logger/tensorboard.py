"""The TensorBoard log of a run."""

from __future__ import annotations

import html
import json
import math
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from logger import figures
from logger.layer_outputs import layer_outputs
from logger.log import get_logger
from logger.trace import undisturbed

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# Where a run is kept and how much it says has no part in its result.
_NO_HPARAMS = re.compile(
    r"^(name|n_gpu|run_id|metrics|extends)$|\b(save_dir|data_dir|verbosity|tensorboard|tensorboard_layers|num_workers)$|^_"
)


# Charts under one heading are seen together, and headings stand in alphabetical order: first the curves by epoch, then
# the final figures ("hparam"), pictures, and what is counted in batches.
_HEADING = {"train": "epoch", "valid": "epoch", "batch": "step"}


class _Records:
    """Passes records on to a file for as long as it takes them. After half a record, nothing more could be read.

    In TensorBoard's own thread an error would be a traceback, and the next thing to log would fail for it.
    """

    def __init__(self, records: Any, owner: TensorboardWriter) -> None:
        self._records, self._owner = records, owner

    def write(self, record: bytes) -> None:
        if self._owner.enabled:
            try:
                self._records.write(record)
            except OSError as error:
                self._owner.give_up(error)

    def flush(self) -> None:
        self._records.flush()

    def close(self) -> None:
        self._records.close()


class TensorboardWriter:
    """Writes what the trainer has to show; does nothing, and imports nothing, when disabled.

    A full disk ends the log, not the training: a warning says so, and what was logged before stays.

    Three folders, which TensorBoard shows as runs: `log_dir` for what is counted in batches or belongs to the run as
    a whole, ``log_dir/train`` and ``log_dir/valid`` for what is counted in epochs. The same tag in the two shares one
    chart: ``epoch/<name>``. What is counted in batches is ``step/<name>``.

    Args:
        log_dir: folder of the run.
        enabled: False for a configuration without TensorBoard and for all processes but the first.
        purge_epoch: first epoch that a resumed run trains anew; what was logged from there on before is hidden.
        purge_step: the same for batches, as a global step.
    """

    def __init__(
        self, log_dir: Path, enabled: bool, *, purge_epoch: int | None = None, purge_step: int | None = None
    ) -> None:
        self.enabled = enabled
        self._log_dir = Path(log_dir)
        self._warned = threading.Lock()
        self._writers: dict[str, SummaryWriter] = {}
        if enabled:
            # Three folders, not one, also because a purge by epoch would otherwise hide charts counted in batches.
            parts = {"batch": ("", purge_step), "train": ("train", purge_epoch), "valid": ("valid", purge_epoch)}
            try:
                for part, (folder, purge) in parts.items():
                    self._writers[part] = self._open(self._log_dir / folder, purge)
            except OSError as error:
                self.give_up(error)

    def _open(self, folder: Path, purge_step: int | None) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(folder), purge_step=purge_step)
        events = writer.file_writer.event_writer._async_writer
        events._writer = events._worker._record_writer = _Records(events._writer, self)
        return writer

    def give_up(self, error: OSError) -> None:
        """Log nothing more; the first time, say why."""
        self.enabled = False
        if self._warned.acquire(blocking=False):
            reason = f"{self._log_dir}: cannot be written: {error.strerror}"
            get_logger(__name__).warning(f"TensorBoard's log ends here, the training goes on: {reason}")

    def scalars(self, part: str, values: Mapping[str, float], step: int) -> None:
        """Log numbers; those that are not finite are left out.

        Args:
            part: "train" or "valid", with the epoch as `step`; "batch", with the global step (learning_rate,
                grad_norm, samples_per_second).
            values: numbers by name; tensors of one element will do.
            step: position on the x axis.
        """
        if not self.enabled:
            return
        self._scalars(part, _HEADING[part], values, step)

    def _scalars(self, part: str, heading: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            if math.isfinite(number := float(value)):
                self._writers[part].add_scalar(f"{heading}/{name}", number, step)

    def confusion(self, matrix: Any, classes: Sequence[str], step: int) -> None:
        """Log the confusion matrix of the validation, ``(classes, classes)`` counts, target by prediction."""
        if self.enabled:
            counts = matrix.cpu().numpy() if isinstance(matrix, Tensor) else matrix
            figure = figures.confusion_figure(counts, classes, f"validation, epoch {step}")
            self._writers["valid"].add_image(
                "pictures/confusion_matrix", figures.to_image(figure), step, dataformats="HWC"
            )

    def examples(self, inputs: Any, labels: Sequence[str], step: int = 0) -> None:
        """Log up to eight items of model input, shapes as in `logger.figures.examples_figure`, with their labels."""
        if self.enabled:
            few = inputs[: figures.MAX_EXAMPLES]
            few = few.detach().float().cpu().numpy() if isinstance(few, Tensor) else few
            image = figures.to_image(figures.examples_figure(few, labels))
            self._writers["batch"].add_image("pictures/examples", image, step, dataformats="HWC")

    def layers(self, model: nn.Module, item: Tensor, step: int) -> None:
        """Log what convolution, pooling and activation layers make of one item, one picture a layer.

        Args:
            model: as it is after this, too, see `logger.layer_outputs`.
            item: ``(1, ...)`` model input.
            step: the global step.
        """
        if not self.enabled:
            return
        for number, layer in enumerate(layer_outputs(model, item), start=1):
            image = figures.to_image(figures.layer_figure(layer.values, f"{layer.name} {layer.shape}"))
            tag = f"layers/{number:02d}_{layer.name.replace(' ', '_')}"
            self._writers["batch"].add_image(tag, image, step, dataformats="HWC")

    def graph(self, model: nn.Module, example_input: Tensor) -> None:
        """Log the model's graph, traced in evaluation mode on the first item of `example_input` ``(batch, ...)``.

        The model, its buffers and modes, and the random generators are as before. A model that cannot be traced is
        a warning.
        """
        if not self.enabled:
            return
        try:
            with undisturbed(model) as device:
                self._writers["batch"].add_graph(model, example_input[:1].to(device))
        except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
            reason = str(error).strip().split("\n")[0]
            get_logger(__name__).warning(f"TensorBoard shows no graph: the model cannot be traced ({reason})")

    def text(self, tag: str, markdown: str) -> None:
        """Log Markdown. HTML in it is shown, not obeyed, so that file names and labels may stand in it."""
        if self.enabled:
            # The viewer escapes fenced code itself; escaping it here as well would show &lt; for <.
            pieces = re.split(r"(^```.*?^```\s*?$)", markdown, flags=re.MULTILINE | re.DOTALL)
            safe = "".join(p if p.startswith("```") else html.escape(p, quote=False) for p in pieces)
            self._writers["batch"].add_text(tag, safe.encode("utf-8", "backslashreplace").decode(), 0)

    def config(self, config: Mapping[str, Any]) -> None:
        """Log the configuration as indented JSON."""
        # No line of indented JSON starts with ```, so nothing in a value can end the block.
        self.text("config", f"```json\n{json.dumps(config, indent=2, ensure_ascii=False, default=str)}\n```")

    def hparams(self, config: Mapping[str, Any], metrics: Mapping[str, float], step: int = 0) -> None:
        """Log the configuration and the final metrics as one row of the HPARAMS tab.

        Args:
            config: nested; its leaves become columns, see `flat_config`.
            metrics: final numbers, shown as ``hparam/<name>``; those that are not finite are left out.
            step: the first global step that is not trained: a run that goes on hides them and logs its own.
        """
        if not self.enabled:
            return
        from torch.utils.tensorboard.summary import hparams

        # The first of the three summaries, the experiment, is left out: TensorBoard takes the columns from one
        # arbitrary experiment it finds, and runs of another architecture would lose theirs. Without one it collects
        # the columns of all runs. `SummaryWriter.add_hparams` would also open a run of its own.
        _, start, end = hparams(flat_config(config), {})
        file_writer = self._writers["batch"].file_writer
        file_writer.add_summary(start)
        file_writer.add_summary(end)
        self._scalars("batch", "hparam", metrics, step)

    def flush(self) -> None:
        """Make what was logged so far visible."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Write what is left. Logging after that is an error."""
        for writer in self._writers.values():
            writer.close()


def flat_config(config: Mapping[str, Any]) -> dict[str, str | int | float]:
    """The leaves of a configuration that bear on its result, by a short path; numbers, and the rest as text.

    >>> flat_config({"name": "a", "optimizer": {"type": "Adam", "args": {"lr": 0.1, "betas": [0.9, 0.99]}}})
    {'optimizer': 'Adam', 'optimizer.lr': 0.1, 'optimizer.betas': '[0.9, 0.99]'}
    """
    flat: dict[str, str | int | float] = {}

    def visit(path: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                visit(path if key in ("type", "args") and path else f"{path}.{key}".lstrip("."), item)
        elif not _NO_HPARAMS.search(path):
            # TensorBoard would show a truth value as 1.0000.
            plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
            flat[path] = value if plain else json.dumps(value, default=str)

    visit("", config)
    return flat
