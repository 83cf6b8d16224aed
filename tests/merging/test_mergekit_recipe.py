"""mergekit's configurations are read as recipes, or refused with all that can't be said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import soup
import soup.testing
from soup.errors import RecipeError
from tests.helpers.method_pools import make_pool, merge, near, numbers
from tests.helpers.tiny_adapters import exact, linear_factors, write_adapter

WEIGHT = "model.layers.0.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_pool(tmp_path_factory.mktemp("pool"), count=2)


def write(folder, **fields):
    (folder / "mergekit.yaml").write_text(yaml.safe_dump(fields))
    return folder / "mergekit.yaml"


def models(*weights, **parameters):
    return [
        {"model": f"ckpts/m{number}", "parameters": {"weight": weight, **parameters}}
        for number, weight in enumerate(weights)
    ]


CASES = {
    "linear": (
        {"merge_method": "linear", "models": models(1, 3), "dtype": "float32"},
        {"method": "linear", "params": {}, "dtype": "float32"},
    ),
    "task_arithmetic": (
        {
            "merge_method": "task_arithmetic",
            "base_model": "base",
            "models": models(0.3, 0.5),
            "parameters": {"lambda": 0.9},
        },
        {"method": "task-arithmetic", "params": {"normalize": False, "scale": 0.9}},
    ),
    "ties": (
        {
            "merge_method": "ties",
            "base_model": "base",
            "models": [{"model": "base"}, *models(1, 1, density=0.4)],
            "parameters": {"int8_mask": True},
            "out_dtype": "bfloat16",
        },
        {
            "method": "ties",
            "params": {"scope": "tensor", "merge": "mean", "density": 0.4, "scale": 1.0},
            "dtype": "bfloat16",
        },
    ),
    "dare_ties": (
        {"merge_method": "dare_ties", "base_model": "base", "models": models(1, 1, density=0.25)},
        {"method": "dare", "params": {"p": 0.75, "scale": 1.0, "elect": True, "normalize": False, "rescale": True}},
    ),
    "dare_linear": (
        {
            "merge_method": "dare_linear",
            "base_model": "base",
            "models": models(1, 1, density=0.9),
            "parameters": {"rescale": False, "normalize": True},
        },
        {"method": "dare", "params": {"p": 0.1, "scale": 1.0, "elect": False, "normalize": True, "rescale": False}},
    ),
    "slerp": (
        {
            "merge_method": "slerp",
            "base_model": "ckpts/m0",
            "models": [{"model": "ckpts/m0"}, {"model": "ckpts/m1"}],
            "parameters": {"t": 0.25},
        },
        {"method": "karcher", "params": {}},
    ),
    "nuslerp": (
        {"merge_method": "nuslerp", "models": models(1, 3), "parameters": {"nuslerp_flatten": False}},
        {"method": "karcher", "params": {"unit": "row"}},
    ),
    "karcher": (
        {"merge_method": "karcher", "models": models(1, 1), "parameters": {"max_iter": 30, "tol": 1e-6}},
        {"method": "karcher", "params": {}},
    ),
    "model_stock": (
        {"merge_method": "model_stock", "base_model": "base", "models": [{"model": "ckpts/m0"}, {"model": "ckpts/m1"}]},
        {"method": "model-stock", "params": {}},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_configuration_is_the_recipe_that_says_the_same_and_makes_a_soup(folder, name):
    fields, expected = CASES[name]
    recipe = soup.Recipe.read(write(folder, **fields))
    assert {key: getattr(recipe, key) for key in expected} == expected
    assert [share.path for share in recipe.ingredients] == [str(folder / "ckpts/m0"), str(folder / "ckpts/m1")]
    assert (recipe.base is None) == (recipe.method in ("linear", "karcher"))
    made = soup.merge(folder / "mergekit.yaml", folder / f"out {name}")
    assert soup.Recipe.read(folder / f"out {name}/recipe.yaml").digest == made.digest


def test_weights_and_interpolation_are_those_of_the_configuration(folder):
    recipe = soup.Recipe.read(write(folder, **CASES["slerp"][0]))
    assert [share.weight for share in recipe.ingredients] == [0.75, 0.25]
    fields = {"merge_method": "linear", "models": models(1, 3)}
    soup.merge(write(folder, **fields), folder / "linear")
    _, (first, second) = numbers(folder)
    expected = {name: 0.25 * first[name] + 0.75 * second[name] for name in first}
    assert near(merge(folder, "linear", "ours", weights=[1.0, 3.0]), expected)
    written = soup.Recipe.read(folder / "linear/recipe.yaml")
    assert [share.weight for share in written.ingredients] == [1, 3]
    assert torch.equal(*(merge(folder, "linear", f"again {n}", weights=[1.0, 3.0])["model.one"] for n in range(2)))


def test_a_weight_of_all_is_that_of_models_without_their_own(folder):
    weighted, plain = models(0.9), [{"model": "ckpts/m1"}]
    fields = {"merge_method": "task_arithmetic", "base_model": "base", "models": weighted + plain}
    recipe = soup.Recipe.read(write(folder, **fields, parameters={"weight": 0.3}))
    assert [share.weight for share in recipe.ingredients] == [0.9, 0.3]


UNLISTED = {
    "linear": {"models": [{"model": "ckpts/m1", "parameters": {"weight": 3}}], "parameters": {"weight": 2}},
    "karcher": {"models": [{"model": "ckpts/m1"}]},
}


@pytest.mark.parametrize(("method", "weights"), [("linear", [3, 2]), ("karcher", [1, 1])])
def test_a_base_that_is_not_listed_is_merged_too_where_no_deltas_are(folder, method, weights):
    fields = {"merge_method": method, "base_model": "ckpts/m0", **UNLISTED[method]}
    recipe = soup.Recipe.read(write(folder, **fields))
    assert [(Path(share.path).name, share.weight) for share in recipe.ingredients] == [
        ("m1", weights[0]),
        ("m0", weights[1]),
    ]
    listed = {**fields, "models": [*fields["models"], {"model": "ckpts/m0"}]}
    assert soup.Recipe.read(write(folder, **listed)) == recipe


@pytest.fixture(scope="module")
def adapters(folder):
    """The pool with two adapters, of a base that their configs don't name."""
    base = soup.testing.tiny_tensor(WEIGHT, (9, 6), dtype="float32")
    soup.testing.tiny_checkpoint(folder / "small", tensors={WEIGHT: base})
    for number in range(2):
        write_adapter(folder / f"lora{number}", linear_factors({WEIGHT: (9, 6)}, seed=number))
    return folder


@pytest.mark.parametrize(("method", "share"), [("linear", 0.5), ("task_arithmetic", 1)])
def test_a_base_and_its_adapter_are_an_ingredient_on_that_base(adapters, method, share):
    fields = {"merge_method": method, "models": [{"model": "small+lora0"}, {"model": "./small+lora1"}]}
    fields["parameters"] = {"weight": 1}
    soup.merge(
        write(adapters, **fields, **({} if method == "linear" else {"base_model": "small"})), adapters / f"by {method}"
    )
    base = load_file(adapters / "small/model.safetensors")
    deltas = sum(exact(base, adapters / f"lora{number}")[WEIGHT] - base[WEIGHT].double() for number in range(2))
    made = load_file(adapters / f"by {method}/model.safetensors")[WEIGHT].double()
    assert torch.allclose(made, base[WEIGHT].double() + share * deltas, atol=1e-6)


def test_a_model_and_an_adapter_on_it_are_two_ingredients(adapters):
    fields = {"merge_method": "slerp", "base_model": "small", "models": [{"model": "small+lora1"}]}
    made = soup.merge(write(adapters, **fields), adapters / "slerp")
    assert [Path(share.path).name for share in made.ingredients] == ["small", "lora1"]
    assert Path(made.base.path).name == "small"


def test_a_path_with_a_plus_that_is_there_is_a_path(adapters):
    shutil.copytree(adapters / "small", adapters / "a+b")
    fields = {"merge_method": "karcher", "models": [{"model": "a+b"}, {"model": "small"}]}
    recipe = soup.Recipe.read(write(adapters, **fields))
    assert ([share.path for share in recipe.ingredients], recipe.base) == (
        [str(adapters / "a+b"), str(adapters / "small")],
        None,
    )


WRONG = {
    "adapters on two bases": (
        {"merge_method": "linear", "models": [{"model": "one+a"}, {"model": "two+b"}]},
        ["models: adapters on one, two: a recipe puts all on one base"],
    ),
    "an adapter on another base than the deltas": (
        {"merge_method": "ties", "base_model": "base", "models": [{"model": "other+a"}]},
        ["adapters on other, base"],
    ),
    "an adapter as the base": (
        {"merge_method": "ties", "base_model": "base+a", "models": models(1)},
        ["base_model: expected the path or the Hub id of a whole model, found 'base+a'"],
    ),
    "two adapters of one model": (
        {"merge_method": "linear", "models": [{"model": "base+a+b"}, {"model": "base+"}]},
        ["models.0.model: expected a model, or BASE+ADAPTER, found 'base+a+b'", "models.1.model: expected"],
    ),
    "slices": ({"merge_method": "linear", "slices": []}, ["slices: has no place", "models: expected a list"]),
    "a method of mergekit's alone": ({"merge_method": "breadcrumbs", "models": models(1)}, ["breadcrumbs: no method"]),
    "a gradient": (
        {"merge_method": "ties", "base_model": "base", "models": models(1, 1, density=[0.1, 0.9])},
        ["density: expected one number for all models and layers"],
    ),
    "densities that differ": (
        {"merge_method": "ties", "base_model": "base", "models": [*models(1, density=0.1), *models(1, density=0.2)]},
        ["density: expected one number"],
    ),
    "a density of one model, where the other's is 1": (
        {"merge_method": "ties", "base_model": "base", "models": [*models(1, density=0.5), {"model": "b"}]},
        ["density: expected one number for all models and layers, found [0.5, 1.0]"],
    ),
    "a gradient of weights for all": (
        {"merge_method": "linear", "models": [{"model": "a"}], "parameters": {"weight": [0, 1]}},
        ["models.0.parameters.weight: expected a number"],
    ),
    "weights by filters": (
        {
            "merge_method": "linear",
            "models": [{"model": "a", "parameters": {"weight": [{"filter": "mlp", "value": 1}]}}],
        },
        ["models.0.parameters.weight: expected a number"],
    ),
    "trimmed deltas brought to their old length": (
        {"merge_method": "ties", "base_model": "a", "models": models(1), "parameters": {"rescale": True}},
        ["rescale: true: has no place in ties"],
    ),
    "nuslerp of deltas, by columns, of three": (
        {
            "merge_method": "nuslerp",
            "base_model": "a",
            "models": models(1, 1, 1),
            "parameters": {"nuslerp_flatten": False, "nuslerp_row_wise": True},
        },
        ["base_model: nuslerp of deltas", "nuslerp: expected two", "nuslerp_row_wise: true: directions of columns"],
    ),
    "sums that are not normalised": (
        {"merge_method": "linear", "models": models(1, 1), "parameters": {"normalize": False}},
        ["normalize: false: the weights sum to 2"],
    ),
    "a parameter that nobody knows": (
        {"merge_method": "linear", "models": models(1, 1, gamma=0.1), "tokenizer_source": "union"},
        ["tokenizer_source: has no place"],
    ),
    "a model's parameter that nobody knows": (
        {"merge_method": "linear", "models": models(1, 1, gamma=0.1)},
        ["parameters: gamma: has no place in linear"],
    ),
    "slerp of one": ({"merge_method": "slerp", "models": models(1)}, ["expected base_model and one other model"]),
    "a density that is no number": (
        {"merge_method": "dare_linear", "base_model": "base", "models": models(1, density="much")},
        ["density: expected a number, found 'much'"],
    ),
    "a switch that is a number": (
        {"merge_method": "linear", "models": models(1), "parameters": {"normalize": 1}},
        ["normalize: expected true or false, found 1"],
    ),
    "weights that mergekit asks for": (
        {"merge_method": "dare_ties", "base_model": "base", "models": [*models(1), {"model": "b"}, {"model": "base"}]},
        ["b: weight: missing, and mergekit has no default"],
    ),
    "the weight of a base that is not listed": (
        {"merge_method": "linear", "base_model": "base", "models": models(1)},
        ["base: weight: missing, and mergekit has no default"],
    ),
    "what mergekit reads of the whole alone": (
        {"merge_method": "task_arithmetic", "base_model": "base", "models": models(1, **{"lambda": 0.5})},
        ["lambda: mergekit ignores a model's own"],
    ),
    "a weight beside the parameters": (
        {"merge_method": "karcher", "models": [{"model": "a", "weight": 0.9}]},
        ["models.0.weight: has no place beside model and parameters"],
    ),
    "parameters of a model that are none": (
        {"merge_method": "karcher", "models": [{"model": "a", "parameters": [1]}]},
        ["models.0.parameters: expected a mapping, found [1]"],
    ),
    "a base that is none": ({"merge_method": "ties", "base_model": {}, "models": models(1)}, ["base_model: expected"]),
    "models that are none": ({"merge_method": "linear", "models": ["a"]}, ["models.0: expected a mapping"]),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_can_t_be_said_is_refused_all_at_once(folder, kind):
    fields, reasons = WRONG[kind]
    with pytest.raises(RecipeError, match="mergekit's configuration can't be said") as refused:
        soup.Recipe.read(write(folder, **fields))
    for reason in reasons:
        assert reason in str(refused.value)
