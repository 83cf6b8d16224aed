"""What runs inside of each of vLLM's workers: it blends a candidate from the ingredients' files into the loaded model.

Written for vLLM 0.32, whose own reloading warns where weights are missing and wrecks the model where a name is unknown:
names are counted here, and whoever calls this looks at them before.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from evaluators.answering.engines.vllm_loader import known_names
from soup.errors import EvaluatorError
from soup.evaluation.candidate import PortableCandidate
from soup.support.text import bullet_list, pluralize

if TYPE_CHECKING:
    import torch

__all__ = ["SwapExtension"]


class SwapExtension:
    """Added to the bases of vLLM's worker (`worker_extension_cls`)."""

    model_runner: Any
    model_config: Any
    vllm_config: Any

    def soup_swap(self, pickled: bytes) -> int:
        """Load a candidate's weights into this worker's share of the model.

        Args:
            pickled: A `PortableCandidate`.

        Returns:
            How many tensors were read.

        Raises:
            EvaluatorError: not all of them were read, or parameters were left as they were.
        """
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

        candidate: PortableCandidate = pickle.loads(pickled)
        model, read = self.model_runner.get_model(), []
        names = known_names(model)

        def counted(tensors: Iterator[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
            for name, values in tensors:
                read.append(name)
                yield names.get(name, name), values

        with set_current_vllm_config(self.vllm_config), candidate.opened() as soup:
            initialize_layerwise_reload(model)
            loaded = model.load_weights(counted(soup.tensors()))
            finalize_layerwise_reload(model, self.model_config)
            _repack_heads(model)
        unread = candidate.layout.keys() - set(read)
        left = {name for name, _ in model.named_parameters()} - loaded if loaded is not None else set()
        if unread or left:
            raise EvaluatorError(
                f"vLLM left {pluralize(len(unread), 'tensor')} unread, "
                f"and {pluralize(len(left), 'parameter')} as before:\n{bullet_list(sorted(unread | left))}"
            )
        self.model_runner.reset_encoder_cache()
        self.model_runner.reset_mm_cache()
        return len(read)


def _repack_heads(model: Any) -> None:
    """Have heads that are tied to the embeddings pack their weights again: on processors they keep a copy of them."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)
