"""Which tensors of a base an adapter changes: PEFT's keys, taken apart and matched with the names in the base's files.

PEFT writes the names that modules have in memory, and transformers renames many on loading. Words that versions of
transformers put in or leave out (`model`, `language_model`, `vision_model`) are left out on both sides; a match must be
the only one, and every key must have its match. What words do not tell, transformers' own conversion of the base does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property

from soup.checkpoints.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, PREFIX, Adapter
from soup.checkpoints.adapter_deltas import Change, Delta, Factor
from soup.checkpoints.adapter_parameters import ParameterTargets, StackFactors
from soup.checkpoints.reader import Checkpoint
from soup.checkpoints.tensor_names import plain_name
from soup.checkpoints.tied import EMBEDDINGS, OUTPUT, embeddings_of, is_tied, is_tied_by_another_name, output_of
from soup.errors import CheckpointError
from soup.hf.key_mapping import bare_module, layers_of_inputs_first, names_on_disk, tied_in_memory
from soup.hf.places import component_kind
from soup.support.options import option_name
from soup.support.text import bullet_list

__all__ = ["WRAPPERS", "find_changes", "saved_module", "unties"]

WRAPPERS = re.compile(  # of modules; those of parameters, which hold factors themselves, stay in the name
    r"\.(?:base_layer(?!(?:\.base_layer)*\.lora_)|modules_to_save|original_module)(?:\.default)?(?=\.)"
)
_PART = re.compile(
    r"^(?P<module>.+)\.(?P<part>lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))(?:\.default)?"
    r"(?:\.(?P<leaf>weight|bias))?$"
)
_TOKENS = re.compile(r"^(?P<module>.+)\.token_adapter\.trainable_tokens_delta(?:\.default)?$")
_TRAINING_ONLY = re.compile(r"\.lora_velora_embed(?:\.|$)")
"""What changes gradients alone, and no weight: VeLoRA's projections of what a layer was given."""
_NAMELESS: tuple[tuple[str, ...], ...] = ((), ("vision_model",))
"""Words that are left out of names besides those that `plain_name` leaves out anyhow: first none, then these."""


def find_changes(adapter: Adapter, base: Checkpoint) -> dict[str, Change]:
    """Match all that an adapter's file holds with the tensors of its base.

    Returns:
        The change of each tensor by its name in the base.

    Raises:
        CheckpointError: Keys without a match, or with several; shapes that do not fit; all are listed.
    """
    return _Matching(adapter, base).changes()


def unties(adapter: Adapter, base: Checkpoint) -> bool:
    """Whether an adapter trains, each for itself, embeddings and output layer of a base that ties them.

    PEFT saves a second copy of what it kept tied (`ensure_weight_tying`) and no longer lists, or only saved along. In
    one module that is saved as a whole the two stay tied.
    """
    if not is_tied(base):
        return False
    names = [WRAPPERS.sub("", key.removeprefix(PREFIX)) for key in adapter.tensors if ".base_layer." not in key]
    ends = {end: _module_in_full(adapter, name) for name in names if (end := _end(name))}
    if len(ends) < 2:
        return OUTPUT in ends or ends.get(EMBEDDINGS) is not None
    is_copy = adapter.is_set("ensure_weight_tying") and ends[OUTPUT] is None
    return ends[EMBEDDINGS] != ends[OUTPUT] and not is_copy


def _end(name: str) -> str | None:
    return next((end for end in (EMBEDDINGS, OUTPUT) if f".{name}".endswith(f".{end}")), None)


def saved_module(name: str, saved: Collection[str]) -> str | None:
    """Return the module that PEFT saves as a whole, and that a tensor lies in.

    Args:
        name: The tensor's name in memory.
        saved: How names of such modules end, as in `modules_to_save`, with or without a dot before it.
    """
    words = name.split(".")
    around = (".".join(words[:count]) for count in range(1, len(words)))
    return next((module for module in around if module.endswith(tuple(saved))), None)


def _module_in_full(adapter: Adapter, name: str) -> str | None:
    listed = adapter.settings.get("modules_to_save")
    return saved_module(name, [saved for saved in listed if isinstance(saved, str)] if isinstance(listed, list) else ())


class _Matching:
    """An adapter's keys on their way to the names of a base."""

    def __init__(self, adapter: Adapter, base: Checkpoint) -> None:
        self.adapter, self.base = adapter, base
        self.unties = unties(adapter, base)
        self.parameters = ParameterTargets(adapter, base)
        self.by_plain_name = {words: _by_plain_name(base.tensors, words) for words in _NAMELESS}
        self.wrong: list[str] = []
        self.is_made_on_loading = False  # a tensor that a key stands for
        self.vocabulary = 0  # rows of embeddings that the base has not as many of
        self.modules: dict[str, dict[str, str]] = {}
        self.whole: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        for key, spec in adapter.tensors.items():
            if _TRAINING_ONLY.search(key):
                continue
            name = WRAPPERS.sub("", key.removeprefix(PREFIX))
            part, tokens = _PART.match(name), _TOKENS.match(name)
            if (part or tokens) and spec.dtype.kind != "float":
                self.wrong.append(
                    f"{key}: expected a factor of 16, 32 or 64 bits, found {spec}: save it in such a dtype"
                )
            if tokens:
                self.tokens[tokens["module"]] = key
                continue
            if part is None:
                if name not in self.whole or ".original_module." not in key:  # the trained copy is what counts
                    self.whole[name] = key
                continue
            leaf = ".bias" if part["leaf"] == "bias" else ""
            self.modules.setdefault(part["module"], {})[part["part"].removeprefix("lora_") + leaf] = key

    def changes(self) -> dict[str, Change]:
        deltas: dict[str, list[Delta]] = {}
        for module, parts in self.modules.items():
            for name, delta in self._added(module, parts):
                if self._fits(name, delta):
                    deltas.setdefault(name, []).append(delta)
        for module, key in self.tokens.items():
            match = self._match(f"{module}.weight", key)
            if match is not None and self._has_tokens(match, delta := self._token_rows(module, key)):
                deltas.setdefault(match, []).append(delta)
        stored: dict[str, str] = {}
        for name, key in self._untied_whole().items():
            match = self._match(name, key)
            if match is not None and self._replaces(match, key):
                stored[match] = key
        self._share_tied(deltas, stored)
        self.wrong += [
            f"{name}: several changes, one of them DoRA's or rows of tokens"
            for name, several in deltas.items()
            if len(several) > 1 and not all(delta.is_sum for delta in several)
        ]
        if not self.adapter.tensors:
            raise CheckpointError(
                f"{self.adapter.path}: its {ADAPTER_WEIGHTS} holds no tensors. Save the adapter again."
            )
        if self.wrong and (why := self.base.quantised):
            raise CheckpointError(
                f"{self.adapter.path}: its base {self.base.path} is quantised: {why}. Adapters are added to "
                f"ordinary numbers: {option_name('base')} takes the model that was quantised."
            )
        if self.wrong:
            named = self.adapter.base_location
            resized = (
                f"\nIt was trained after its vocabulary grew: base.resize_token_embeddings({self.vocabulary}), and "
                "base.save_pretrained(BASE), make a base that it fits."
            )
            merged = (
                f"\nPEFT makes it a whole model: PeftModel.from_pretrained(base, '{self.adapter.path}')"
                f".merge_and_unload().save_pretrained('{self.adapter.path}-merged')"
            )
            raise CheckpointError(
                f"{self.adapter.path}: does not fit its base {self.base.path}:\n"
                f"{bullet_list(dict.fromkeys(self.wrong))}\n{option_name('base')} chooses another base"
                f"{f'; {ADAPTER_CONFIG} names {named}' if named else ''}."
                f"{resized if self.vocabulary else ''}{merged if self.is_made_on_loading else ''}"
            )
        names = [name for name in self.base.tensors if name in deltas or name in stored]
        return {name: Change(tuple(deltas.get(name, ())), stored.get(name)) for name in names}

    def _share_tied(self, deltas: dict[str, list[Delta]], stored: dict[str, str]) -> None:
        """Change embeddings and output layer alike where a base has both and ties them: in memory they are one."""
        embeddings, output = embeddings_of(self.base.tensors), output_of(self.base.tensors)
        if embeddings is None or output is None or self.unties or not is_tied(self.base):
            return
        if shared := [delta for name in (embeddings, output) for delta in deltas.pop(name, [])]:
            deltas |= dict.fromkeys((embeddings, output), shared)
        if embeddings in stored:
            stored[output] = stored[embeddings]

    def _untied_whole(self) -> dict[str, str]:
        """Leave out the output layer that PEFT saved a second time: it kept it tied to embeddings that it saved."""
        twice = not self.unties and any(name.endswith(EMBEDDINGS) for name in self.whole)
        return {
            name: key for name, key in self.whole.items() if not (twice and name.endswith(OUTPUT) and self._tied(name))
        }

    def _token_rows(self, module: str, key: str) -> Delta:
        shape = self.adapter.tensors[key].shape
        matrix = shape if len(shape) == 2 else (self.adapter.tensors[key].elements, 1)
        return Delta(self._factor(key, matrix), None, 1.0, tokens=self.adapter.tokens_of(module))

    def _has_tokens(self, name: str, delta: Delta) -> bool:
        """Whether a tensor has the rows that a delta trains; tells if not."""
        spec, (rows, columns), most = self.base.tensors[name], delta.left.shape, max(delta.tokens, default=-1)
        if rows == len(delta.tokens) and len(spec.shape) == 2 and spec.shape[1] == columns and most < spec.shape[0]:
            return True
        self.wrong.append(
            f"{delta.left.name}: has {rows} rows of {columns} for {len(delta.tokens)} tokens up to {most} of {name}, "
            f"which is {spec}"
        )
        return False

    def _added(self, module: str, parts: Mapping[str, str]) -> Iterator[tuple[str, Delta]]:
        """Yield what a module's factors add to which tensors of the base."""
        parameter = self.parameters.find(module)
        if parameter is None or len(parameter.shape) == 2:
            for leaf, delta in self._deltas(module, parts, parameter.name if parameter else module):
                weight = parameter.name if parameter and leaf == "weight" else f"{module}.{leaf}"
                match = self._match(weight, next(iter(parts.values())), quietly=leaf == "bias")
                if match is not None:
                    yield match, delta
                elif leaf == "bias":
                    self.wrong.append(f"{delta.left.name}: the base has no such bias, and PEFT can't merge it either")
            return
        factors = StackFactors(self.adapter, parts.get("A", ""), parts.get("B", ""), parameter)
        if not factors.a or not factors.b:
            self.wrong += [f"{key}: its other factor is missing" for key in parts.values()]
        elif len(parameter.shape) != 3 or not factors.fit:
            a, b = map(list, factors.shapes)
            self.wrong.append(
                f"{factors.a}: factors of shapes {a} and {b} for {parameter.name} {list(parameter.shape)}"
            )
        elif deltas := list(self.parameters.deltas(factors)):
            yield from deltas
        else:
            self.wrong.append(
                f"{factors.a}: how transformers makes {parameter.name} of the base's tensors is not known"
            )

    def _deltas(self, module: str, parts: Mapping[str, str], key: str) -> Iterator[tuple[str, Delta]]:
        """Yield what a module's factors add: the name of the parameter in the module, and the delta.

        `key` is what the config's patterns are held against.
        """
        kind = "embedding_" if "embedding_A" in parts else ""
        a, b = parts.get(f"{kind}A"), parts.get(f"{kind}B")
        if a is None or b is None:
            self.wrong += [f"{key}: its other factor is missing" for key in parts.values()]
            return
        for part, setting in (("magnitude_vector", "use_dora"), ("B.bias", "lora_bias")):
            if (part in parts) != self.adapter.is_set(setting):
                self.wrong.append(
                    f"{module}: {'has a' if part in parts else 'has no'} lora_{part}, and {setting} is "
                    f"{'not ' * (part in parts)}true in {ADAPTER_CONFIG}: PEFT would merge another model"
                )
                return
        if self._has_three_in_one and self._match(f"{module}.in_proj_weight", a, quietly=True):
            self.wrong.append(
                f"{module}: an nn.MultiheadAttention, to whose out_proj PEFT adds its product twice: make it a whole "
                f"model by PEFT: PeftModel.from_pretrained(base, '{self.adapter.path}').merge_and_unload()"
            )
            return
        shapes = {key: self.adapter.tensors[key].shape for key in (a, b)}
        rank = shapes[a][0] if shapes[a] else 0
        if len(shapes[b]) > 2 and 0 < shapes[b][1] < rank and rank % shapes[b][1] == 0:
            self.wrong.append(f"{module}: a grouped convolution, whose factors PEFT can't merge either")
            return
        if rank == 0 or len(shapes[a]) < 2 or len(shapes[b]) < 2 or shapes[b][1] != rank:
            self.wrong.append(f"{module}: factors of shapes {list(shapes[a])} and {list(shapes[b])} have no product")
            return
        outer = shapes[b][0]
        inner = self.adapter.tensors[a].elements // rank
        scale = self.adapter.scale(key, rank)
        transposed = bool(kind) or self._is_transposed(module, (outer, inner), parts)
        magnitude = self._magnitude(parts)
        if transposed:
            left, right = self._factor(a, (inner, rank), True), self._factor(b, (rank, outer), True)
        else:
            left, right = self._factor(b, (outer, rank)), self._factor(a, (rank, inner))
        yield "weight", Delta(left, right, scale, magnitude, by_column=transposed)
        if bias := parts.get("B.bias"):
            yield "bias", Delta(self._factor(bias, (outer, 1)), None, scale)

    @cached_property
    def _has_three_in_one(self) -> bool:
        return any(name.endswith(".in_proj_weight") for name in self.base.tensors)

    def _factor(self, key: str, shape: tuple[int, int], transposed: bool = False) -> Factor:
        return Factor(self.adapter, key, shape, transposed)

    def _magnitude(self, parts: Mapping[str, str]) -> Factor | None:
        key = parts.get("magnitude_vector")
        return self._factor(key, (self.adapter.tensors[key].elements, 1)) if key else None

    def _is_transposed(self, module: str, shape: tuple[int, int], parts: Mapping[str, str]) -> bool:
        """Whether a linear layer's weight is [in, out]: by the shape where it tells, else by the layer's class.

        The config can't tell: PEFT sets its `fan_in_fan_out` anew for each layer, and saves that of the last one.
        """
        name = self._match(f"{module}.weight", next(iter(parts.values())), quietly=True)
        base_shape = self.base.tensors[name].shape if name is not None else ()
        if name is None or len(base_shape) != 2 or shape[0] != shape[1]:
            return base_shape == shape[::-1] != shape
        if not self.adapter.is_transposed and True not in self._inputs_first.values():
            return False
        if self._layers_of_inputs_first is not None:
            return plain_name(module) in self._layers_of_inputs_first
        return self._is_transposed_around(name)

    @cached_property
    def _layers_of_inputs_first(self) -> frozenset[str] | None:
        names = layers_of_inputs_first(self.base.path)
        return None if names is None else frozenset(map(plain_name, names))

    @cached_property
    def _inputs_first(self) -> dict[str, bool]:
        """Whether a layer of the base is [in, out], by its name, where the length of its bias tells."""
        biases = {name.removesuffix("bias"): spec.shape for name, spec in self.base.tensors.items()}
        return {
            layer: biases[layer] == spec.shape[1:]
            for name, spec in self.base.tensors.items()
            if len(spec.shape) == 2 and spec.shape[0] != spec.shape[1]
            if biases.get(layer := name.removesuffix("weight")) in (spec.shape[:1], spec.shape[1:])
        }

    def _is_transposed_around(self, name: str) -> bool:
        """Whether the nearest layers to a tensor are [in, out], if they are all alike; else what the config says."""
        words = name.split(".")
        while words:
            words.pop()
            prefix = "".join(f"{word}." for word in words)
            if near := {first for layer, first in self._inputs_first.items() if layer.startswith(prefix)}:
                return near.pop() if len(near) == 1 else self.adapter.is_transposed
        return self.adapter.is_transposed

    def _fits(self, name: str, delta: Delta) -> bool:
        """Whether a delta has the shape of a tensor; tells if not."""
        spec, shape = self.base.tensors[name], delta.left.shape[:1] + (delta.right.shape[1:] if delta.right else ())
        expected = (spec.shape[0], spec.elements // max(spec.shape[0], 1)) if len(spec.shape) > 1 else spec.shape
        expected = expected if delta.index is None else spec.shape[1:]
        lengths = shape[delta.by_column] if delta.magnitude else 0
        if spec.dtype.kind != "float" or expected != shape:
            self.wrong.append(f"{delta.left.name}: adds {list(shape)} to {name}, which is {spec}")
            self._note_vocabulary(name, shape)
        elif delta.magnitude and delta.magnitude.shape[0] != lengths:
            self.wrong.append(f"{delta.magnitude.name}: expected {lengths} lengths, found {delta.magnitude.shape[0]}")
        else:
            return True
        return False

    def _replaces(self, name: str, key: str) -> bool:
        """Whether a whole tensor of the adapter can take the place of the base's; tells if not."""
        ours, theirs = self.adapter.tensors[key], self.base.tensors[name]
        if apart := self._tied_apart(name, WRAPPERS.sub("", key.removeprefix(PREFIX))):
            self.wrong.append(
                f"{key}: trained apart from {apart} that the base ties to {name}, and soup unties lm_head from "
                "embed_tokens alone. Where the model's class can, PEFT makes it a whole model: merge_and_unload(), "
                "config.tie_word_embeddings = False, save_pretrained(OUT)"
            )
            return False
        if ours.shape == theirs.shape and ours.dtype.kind == theirs.dtype.kind:
            return True
        self.wrong.append(f"{key}: expected {theirs} as {name} in the base, found {ours}")
        self._note_vocabulary(name, ours.shape)
        return False

    def _tied_apart(self, name: str, key: str) -> str:
        """Tell what is tied to a tensor that the adapter trains in full, and stays the base's: PEFT ties no copies.

        Nothing where that is `lm_head`, which soup unties.
        """
        module = _module_in_full(self.adapter, key)
        if module is None:
            return ""
        if is_tied_by_another_name(self.base, name):
            return "the output layer"
        others = [other for other in self._tied_in_memory.get(key, ()) if not other.startswith(f"{module}.")]
        return ", ".join(other for other in others if {_end(key), _end(other)} != {EMBEDDINGS, OUTPUT})

    @cached_property
    def _tied_in_memory(self) -> Mapping[str, Collection[str]]:
        return tied_in_memory(self.base.path) if is_tied(self.base) else {}

    def _note_vocabulary(self, name: str, shape: tuple[int, ...]) -> None:
        """Take note of embeddings, or an output layer, of another number of tokens."""
        base_shape = self.base.tensors[name].shape
        if name.endswith((EMBEDDINGS, OUTPUT)) and len(shape) == 2 and shape[1:] == base_shape[1:]:
            self.vocabulary = shape[0]

    def _match(self, name: str, key: str, *, quietly: bool = False) -> str | None:
        """Find a tensor of the base by its name in memory; tells where there is none, or several."""
        if name in self.base.tensors:
            return name
        for nameless, grouped in self.by_plain_name.items():
            names = grouped.get(plain_name(name, nameless), [])
            if nameless:  # without the word a tower's layer may have the name of the language model's
                names = [other for other in names if component_kind(other) == component_kind(name)]
            if len(names) == 1:
                return names[0]
            if names:
                if not quietly:
                    self.wrong.append(f"{key}: may be {' or '.join(names)} of the base")
                return None
        if tied := self._tied(name):
            return tied
        if renamed := self.by_name_in_memory.get(name):
            return renamed
        if not quietly:
            self.wrong.append(f"{key}: {self._why_unmatched(name)}")
        return None

    def _why_unmatched(self, name: str) -> str:
        if name not in self.names_in_memory:
            return f"the base has no such tensor{self.parameters.why_unknown}"
        self.is_made_on_loading = True
        return "the base has no such tensor: transformers makes it of others on loading"

    @cached_property
    def names_in_memory(self) -> frozenset[str]:
        """The names that tensors of the base's class have in memory."""
        module = bare_module(self.base.path)
        return frozenset() if module is None else frozenset(module.state_dict())

    @cached_property
    def by_name_in_memory(self) -> dict[str, str]:
        """The base's names by those that transformers gives them on loading."""
        return names_on_disk(self.base.path, self.base.tensors)

    def _tied(self, name: str) -> str | None:
        """Return the embeddings where `name` is an output layer that the base has no weights of: it is tied to them.

        What PEFT adds to either of the two it adds to the one memory that both have.
        """
        has_output = any(other.endswith(OUTPUT) for other in self.base.tensors)
        return embeddings_of(self.base.tensors) if name.endswith(OUTPUT) and not has_output else None


def _by_plain_name(names: Iterable[str], nameless: tuple[str, ...]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(plain_name(name, nameless), []).append(name)
    return groups
