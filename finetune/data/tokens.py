"""Conversations into token ids and labels, by a processor's own template, tokenizer and arithmetic of tiles."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from finetune.data.rows import Message, Sample, Segments, texts_of
from finetune.points.named_tilings import named_tiling
from finetune.points.token_layout import Tiles, layout_of
from soup.errors import FinetuneError

__all__ = ["IGNORED", "RowTokenizer", "knows_tiles", "training_processor"]

IGNORED = -100  # a label that no loss is taken over
SHOWN = 40  # characters of a template's text in errors
PROBE = "probe"  # a text that no template writes of itself
CACHED = 4096  # texts whose tokens are kept: system messages and the prompts that a data set repeats


def knows_tiles(processor: Any) -> bool:
    """Whether a processor tells how many tiles an image has, as that of POINTS does."""
    return hasattr(getattr(processor, "image_processor", None), "tiling")


def training_processor(processor: Any, tiling: str | None) -> Any:
    """Give what makes rows for training: a model's processor, with the tiling that training has to itself.

    Raises:
        FinetuneError: no such tiling, or one that the model can't take.
    """
    return processor.with_tiling(tiling) if tiling and knows_tiles(processor) else processor


def _in_parts(message: Message) -> Message:
    """Give a message whose content is parts, as that of one with images is."""
    content = message["content"]
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


class RowTokenizer:
    """Makes token ids and labels of rows; labels are the assistant's words and the end of its turn, nothing else.

    Of a processor of another family than POINTS only the segments are known: see `ProcessorRows`.
    """

    def __init__(self, processor: Any):
        self.processor = processor
        self.ids_of_text: dict[str, list[int]] = {}
        self.images: dict[Tiles, list[int]] = {}
        self.tiles_of: dict[tuple[int, int], Tiles] = {}
        self.around: dict[tuple[str, ...], int] = {}

    def segments(self, messages: list[Message]) -> Segments:
        """Give the conversation as the chat template writes it, cut where the assistant's words begin and end.

        Each piece is tokenised by itself: at inference the prompt is, too.

        Raises:
            FinetuneError: a template that can't write these messages, or that writes earlier turns otherwise once later
                ones follow.
        """
        segments, done = [], ""
        for i, message in enumerate(messages):
            if message["role"] == "assistant":
                prompt = self._written(messages[:i], add_generation_prompt=True)
                whole = self._written(messages[: i + 1])
                if not (prompt.startswith(done) and whole.startswith(prompt)):
                    raise FinetuneError(self._why_not_cut(messages[:i], prompt, whole))
                segments += [(prompt[len(done) :], False), (whole[len(prompt) :], True)]
                done = whole
        return segments

    def _why_not_cut(self, asked: list[Message], prompt: str, whole: str) -> str:
        """Return why the answer to a prompt can't be told from it."""
        if self._written(asked) == prompt:
            return (
                "the chat template writes no generation prompt (it takes no notice of add_generation_prompt): where an "
                "answer begins can't be told. Write the head of the assistant's turn into the template under "
                "`{% if add_generation_prompt %}`"
            )
        if not whole.startswith(prompt):
            common = next((k for k, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(whole))
            waiting, answered = (text[common : common + SHOWN] for text in (prompt, whole))
            return (
                f"the chat template writes a turn that waits for its answer ({waiting!r}) otherwise than one that has "
                f"it ({answered!r}): where an answer begins can't be told. Let it write the same head in both"
            )
        return (
            "the chat template rewrites earlier turns once later ones follow: the answers can't be told apart. Write "
            "rows of one question and one answer, or a template that keeps turns as they are"
        )

    def _written(self, messages: list[Message], add_generation_prompt: bool = False) -> str:
        try:
            return self.processor.apply_chat_template(
                messages if self._takes_texts else list(map(_in_parts, messages)),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        except Exception as error:  # templates are programs of their own, and raise anything
            raise FinetuneError(f"the chat template can't write these messages ({error})") from error

    @cached_property
    def _takes_texts(self) -> bool:
        """Whether the template writes contents that are texts: some, such as LLaVA's, skip all but parts."""
        talk = [{"role": role, "content": PROBE} for role in ("user", "assistant")]
        try:
            return self.processor.apply_chat_template(talk, tokenize=False).count(PROBE) >= len(talk)
        except Exception:  # templates are programs of their own, and raise anything
            return True

    @property
    def ends_turns(self) -> bool:
        """Whether the template writes a token of its own behind an answer, by which a model learns to stop."""
        return self._written_ends != []

    @property
    def ends(self) -> list[int]:
        """The tokens that end a turn: the tokenizer's own, then the first one that the template writes, often the same.

        Gemma's template ends a turn by `<end_of_turn>`, and a text by the tokenizer's `<eos>`.
        """
        tokens = [self.processor.tokenizer.eos_token_id, *(self._written_ends or [])[:1]]
        return [token for token in dict.fromkeys(tokens) if token is not None]

    @cached_property
    def _written_ends(self) -> list[int] | None:
        """The tokens of its own that the template writes behind an answer; None: it can't be told."""
        try:
            *_, (answer, _) = self.segments([{"role": role, "content": PROBE} for role in ("user", "assistant")])
        except FinetuneError:
            return None  # that is told otherwise
        tokenizer = self.processor.tokenizer
        ends = {*tokenizer.all_special_ids, *tokenizer.added_tokens_encoder.values()}
        return [token for token in self._plain_ids(answer.rpartition(PROBE)[2]) if token in ends]

    def count_learnt(self, answer: Sequence[int]) -> int:
        """Count the first tokens of an answer that are learnt: those up to the end of its turn.

        What the template puts behind that, such as a line break, is not the assistant's.
        """
        return next((answer.index(end) + 1 for end in self.ends if end in answer), len(answer))

    def encoded(self, segments: Segments, tiles: Sequence[Tiles]) -> tuple[list[int], list[int]]:
        """Give token ids and labels of one row whose images have these tiles.

        Raises:
            ValueError: not as many image tokens in the text as images.
        """
        markers = sum(text.count(self.processor.image_token) for text, _ in segments)
        if markers != len(tiles):
            raise ValueError(f"{markers} image tokens ({self.processor.image_token}) in the text, {len(tiles)} images")
        counts = iter(tiles)
        ids: list[int] = []
        labels: list[int] = []
        for text, learnt in segments:
            new = self._ids(text, counts)
            ids += new
            labels += self._learnt(new) if learnt else [IGNORED] * len(new)
        return ids, labels

    def _ids(self, text: str, counts: Iterator[Tiles]) -> list[int]:
        """Return the tokens of a text, each image token in it as many as its image needs."""
        if not self._cut_at_images:
            first, *pieces = text.split(self.processor.image_token)
            return self._plain_ids("".join([first, *(self._image_text(next(counts)) + piece for piece in pieces)]))
        first, *pieces = text.split(self.processor.image_token)
        ids = list(self._plain_ids(first))
        for piece in pieces:
            ids += self._image(next(counts))
            ids += self._plain_ids(piece)
        return ids

    @cached_property
    def _cut_at_images(self) -> bool:
        """Whether a text may be tokenised in pieces between its images: a thousand image tokens take milliseconds.

        Not so with tokenizers that write a space before whatever comes first.
        """
        image = self._image_text(1)
        pieces = (
            self._plain_ids("a b.") + self._image(1) + self._plain_ids(" c\nd") + self._image(1) + self._plain_ids("e")
        )
        return pieces == self._plain_ids(f"a b.{image} c\nd{image}e")

    def _image_text(self, tiles: Tiles) -> str:
        return self.processor.image_text(tiles)

    def _plain_ids(self, text: str) -> list[int]:
        """Return the tokens of a text as it is."""
        if not text:
            return []
        if text not in self.ids_of_text:
            new = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(self.ids_of_text) >= CACHED or len(text) > CACHED:
                return new
            self.ids_of_text[text] = new
        return self.ids_of_text[text]

    def _learnt(self, ids: list[int]) -> list[int]:
        """Return the ids up to the end of the turn, without images, should an answer hold any."""
        end = self.count_learnt(ids)
        return [IGNORED if token in self._of_images else token for token in ids[:end]] + [IGNORED] * (len(ids) - end)

    @cached_property
    def _of_images(self) -> set[int]:
        """The tokens that stand for an image, and those that mark its rows."""
        return set(self._image(1))

    def length(self, sample: Sample, tiles: Sequence[Tiles]) -> int:
        """Count the tokens of a row whose images have these tiles."""
        return len(self.encoded(self.segments(sample["messages"]), tiles)[0])

    def longest_possible(self, sample: Sample, tiles: Sequence[Tiles]) -> int | None:
        """Give a length that the row can't pass, without tokenising it; None where none is known.

        A text has no more tokens than bytes, whatever the vocabulary, once it is normalised: NFC makes it at most
        three times as long, and of the compatibility forms (NFKC) little is certain.
        """
        if not self._short_normal_form:
            return None
        roles = tuple(message["role"] for message in sample["messages"])
        text = sum(len(text.encode()) for text in texts_of(sample)) + self._written_around(roles)
        return 3 * text + sum(len(self._image(n)) for n in tiles)

    @cached_property
    def _short_normal_form(self) -> bool:
        backend = getattr(self.processor.tokenizer, "backend_tokenizer", None)
        normalizer = json.loads(backend.to_str())["normalizer"] if backend else "unknown"
        return normalizer is None or json.dumps(normalizer) in ('{"type": "NFC"}', '{"type": "NFD"}')

    def _written_around(self, roles: tuple[str, ...]) -> int:
        """Bytes that the template adds to messages of these roles, generously: each is cut into two pieces."""
        if roles not in self.around:
            empty: list[Message] = [{"role": role, "content": ""} for role in roles]
            self.around[roles] = len(self._written(empty, add_generation_prompt=True).encode()) + 8 * len(roles)
        return self.around[roles]

    def _image(self, tiles: Tiles) -> list[int]:
        """Return the tokens of an image of these tiles, whatever stands between them."""
        if tiles not in self.images:
            self.images[tiles] = self.processor.tokenizer(self._image_text(tiles), add_special_tokens=False)[
                "input_ids"
            ]
        return self.images[tiles]

    def tiles(self, width: int, height: int) -> Tiles:
        """Give the tiles that an image of that size will have, by the image processor's own arithmetic."""
        if (width, height) not in self.tiles_of:
            self.tiles_of[width, height] = self._tiles(width, height)
        return self.tiles_of[width, height]

    def _tiles(self, width: int, height: int) -> Tiles:
        images = self.processor.image_processor
        if not images.do_tile:
            return 1
        return layout_of(named_tiling(images.tiling).plan(width, height, images.tile))
