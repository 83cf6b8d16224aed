"""The table of docs/zoo.md, written from what the tests of the zoo saw."""

from __future__ import annotations

from dataclasses import dataclass, field

COLUMNS = {
    "test_no_tensor_is_lost_and_each_is_the_mean_in_float64": "merge",
    "test_transformers_reloads_it_as_the_mean_of_its_models": "reload",
    "test_the_reloaded_soup_runs": "forward pass",
    "test_hot_swap_holds_the_written_soup_or_falls_back_with_nothing_touched": "hot swap",
    "test_mergekit": "mergekit",
}
HEAD = """# The zoo

Which vision-language models can be souped? `make zoo` tries every class of transformers'
`AutoModelForImageTextToText`: three tiny models of each, from the class's default configuration cut down by the names
of its fields, are saved as one file and as shards, and averaged.

{versions}

{counts}

- **merge**: keys out == keys in, and every tensor is the float64 mean within the contract of
  [Numerics](numerics.md).
- **reload**: `from_pretrained` finds no key missing, unexpected or of another shape, and the state dict is the mean of
  the three reloaded models.
- **forward pass**: what the reloaded soup was given; its logits are finite.
- **hot swap**: *streamed* into a loaded model, it is bit for bit what `from_pretrained` makes of the written soup; or
  it is loaded *from disk* for the reason given, and the model loaded before is left as it was.
{mergekit}
What stands in a cell holds for one file and for shards; where the two differ, both are named.

| model type | class | tensors | {columns} |
| --- | --- | --: | {dashes} |
{rows}
"""
MERGEKIT = """\
- **mergekit**: its `linear` of the same input (one file, `dtype: float32`, `out_dtype: bfloat16`), loaded by
  transformers and held against the same mean; or the error that it ends with. The configurations are tiny: where
  mergekit knows an architecture by a list of its tensors, it may look for some that only full sizes have.
"""
UNMADE = """
## Not made

transformers made no model from these: the first line of what it said.

| model type | class | reason |
| --- | --- | --- |
{rows}
"""


@dataclass
class Row:
    """What was seen of one architecture: by column, an outcome for each layout."""

    tensors: int = 0
    unmade: str = ""
    cells: dict[str, dict[str, str]] = field(default_factory=dict)

    def cell(self, column):
        """All layouts' outcomes, or the one that they share."""
        outcomes = {layout: text for layout, text in self.cells.get(column, {}).items() if text}
        if len(set(outcomes.values())) <= 1:
            return next(iter(outcomes.values()), "")
        return "; ".join(f"{layout}: {text}" for layout, text in outcomes.items())


def write_table(path, rows, classes, versions):
    """Write the document; `rows` by model type, `classes` too, `versions` by name."""
    made = {name: row for name, row in rows.items() if not row.unmade}
    columns = [column for column in COLUMNS.values() if any(row.cell(column) for row in made.values())]
    failed = sum("FAILED" in row.cell(column) for row in made.values() for column in columns)
    streamed = sum(row.cell("hot swap") == "streamed" for row in made.values())
    counts = f"Made: {len(made)} of {len(rows)} classes. Streamed: {streamed}. Failed cells: {failed}."
    text = HEAD.format(
        versions=", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        counts=counts,
        mergekit=MERGEKIT if "mergekit" in columns else "",
        columns=" | ".join(columns),
        dashes=" | ".join("---" for _ in columns),
        rows="\n".join(
            _line(f"`{name}`", classes[name], row.tensors, *map(row.cell, columns))
            for name, row in sorted(made.items())
        ),
    )
    unmade = [_line(f"`{name}`", classes[name], row.unmade) for name, row in sorted(rows.items()) if row.unmade]
    path.write_text(text + (UNMADE.format(rows="\n".join(unmade)) if unmade else ""), encoding="utf-8")


def _line(*cells):
    return "| " + " | ".join(_escaped(str(cell)) for cell in cells) + " |"


def _escaped(text, most=160):
    text = " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;").replace("*.", r"\*.")
    return text if len(text) <= most else text[:most] + " ..."
