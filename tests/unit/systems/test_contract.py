"""What every system must keep, for each task it can be asked."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from renalkit.domain.image import Mode
from renalkit.errors import ConfigError, InputRefused, ModelRefused
from renalkit.learn.outputs import FeatureNet, Guide, Targets
from renalkit.learn.prepared import CHANNELS
from renalkit.systems import SYSTEMS, all_systems, get_system
from renalkit.systems._contract import ClassBalance, Shape, System, Task

torch.set_num_threads(1)
NAMES = (
    "multitask-us",
    "mufnet-2022",
    "mufnet-2025",
    "bmode-net",
    "ceus-net",
    "repvgg-ceus",
    "unet",
    "nested-unet",
    "ternausnet",
    "resnet18",
    "resnet34",
    "resnext50",
    "stunet",
)
CASES = [
    pytest.param(system, task, id=f"{system.name}-{task}")
    for system in SYSTEMS
    for task in Task
    if task in system.tasks
]
# They classify only, and take any side from 32 pixels on.
CLASSIFIERS = {"mufnet-2022", "mufnet-2025", "bmode-net", "ceus-net", "repvgg-ceus"}


def named(names):
    return [pytest.param(s, id=s.name) for s in SYSTEMS if s.name in names]


def params_of(system, **more):
    fields = system.params_type.model_fields
    narrow = {"width": 0.125} | more
    if system.name == "multitask-us":
        # one hidden unit of a channel attention can be silent for a whole batch
        narrow |= {"cbam_min_hidden": 4}
    if "backbone" in fields:
        narrow |= {"backbone": "efficientnet-b0"}
    return system.params(narrow)


def steady(system):
    """Without what is drawn anew in each step."""
    chance = {"dropout_classifier": 0.0, "dropout": 0.0, "drop_connect": 0.0}
    return {
        name: value for name, value in chance.items() if name in system.params_type.model_fields
    }


def shape_of(system, size=64, n_classes=3, modalities=None, features=()):
    taken = modalities or system.takes[0]
    return Shape(sum(CHANNELS[mode] for mode in taken), size, n_classes, taken, features)


def built(system, task, seed=0, shape=None, **more):
    torch.manual_seed(seed)
    return system.build(params_of(system, **more), shape or shape_of(system), task)


def batch(system, n=4, seed=11):
    """Images with a bright square whose place gives the mask and whose size the class."""
    source = torch.Generator().manual_seed(seed)
    image = torch.rand(n, shape_of(system).channels, 64, 64, generator=source) * 0.3
    mask = torch.zeros(n, 1, 64, 64)
    label = torch.arange(n) % 3
    for i in range(n):
        top, left = torch.randint(0, 30, (2,), generator=source).tolist()
        side = 10 + 10 * int(label[i])
        mask[i, :, top : top + side, left : left + side] = 1
    return image + 0.7 * mask, Targets(mask, torch.ones(n, dtype=torch.bool), label)


def arrays(outputs):
    raw = {}
    if outputs.mask_logits is not None:
        raw["mask_logits"] = torch.cat(outputs.mask_logits, 1).detach().numpy()
    if outputs.class_logits is not None:
        raw["class_logits"] = outputs.class_logits.detach().numpy()
    for name in ("attention", "branch_logits", "modality_weights"):
        value = getattr(outputs, name)
        if value is not None:
            raw[name] = value.detach().numpy()
    return raw


def predicted(net, image):
    with torch.no_grad():
        return arrays(net.eval()(image))


def is_bias_before_normalisation(net, name):
    """Biases that the next normalisation takes away again."""
    module_name, _, kind = name.rpartition(".")
    if module_name.endswith("._bn2"):
        return kind == "bias"  # of EfficientNet's blocks: no activation before the next 1x1
    module = net.get_submodule(module_name)
    if kind != "bias" or not isinstance(module, torch.nn.Conv2d):
        return False
    return module_name.rpartition(".")[2] in {"conv1", "conv2"}


def test_registry_holds_exactly_these_systems_in_this_order():
    assert tuple(system.name for system in SYSTEMS) == NAMES
    assert tuple(system.name for system in all_systems())[: len(NAMES)] == NAMES
    for system in SYSTEMS:
        classifies_only = system.name in CLASSIFIERS
        assert (system.tasks == frozenset({Task.CLASSIFICATION})) == classifies_only
        assert (system.tasks == frozenset(Task)) != classifies_only
    defaults = {system.name: system.default_task for system in SYSTEMS}
    assert defaults.pop("multitask-us") is Task.BOTH
    assert {name for name, task in defaults.items() if task is Task.CLASSIFICATION} == {
        *CLASSIFIERS,
        "resnet18",
        "resnet34",
        "resnext50",
    }


def test_unknown_names_are_refused_with_the_known_ones():
    assert get_system("stunet").name == "stunet"
    with pytest.raises(
        ConfigError, match="unknown system 'unett'; known: multitask-us, mufnet-2022"
    ):
        get_system("unett")


class FakePoint:
    def __init__(self, name, loaded):
        self.name, self.value, self.loaded = name, f"pkg:{name}", loaded

    def load(self):
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


def renamed(name):
    fields = {part: getattr(SYSTEMS[1], part) for part in System.__dataclass_fields__}
    return System(**(fields | {"name": name}))


def test_entry_points_add_systems_in_name_order(monkeypatch):
    points = [FakePoint("b", renamed("second")), FakePoint("a", (renamed("first"),))]
    monkeypatch.setattr("renalkit.systems.entry_points", lambda group: points)
    assert tuple(system.name for system in all_systems()) == (*NAMES, "first", "second")
    assert get_system("second").name == "second"


def test_entry_points_fail_loudly(monkeypatch):
    points = [FakePoint("wrong", 3), FakePoint("taken", renamed("unet"))]
    monkeypatch.setattr("renalkit.systems.entry_points", lambda group: points)
    with pytest.raises(ConfigError, match="expected a System") as refusal:
        all_systems()
    assert "the name 'unet' is taken" in str(refusal.value)
    monkeypatch.setattr(
        "renalkit.systems.entry_points", lambda group: [FakePoint("x", ImportError("broken"))]
    )
    with pytest.raises(ImportError, match="broken"):
        all_systems()


def test_listing_systems_and_decoding_loads_no_torch():
    code = (
        "import sys, numpy as np; from renalkit.systems import SYSTEMS; s = SYSTEMS[0];"
        "s.decode(s.params(), {'class_logits': np.zeros((1, 2), np.float32)});"
        "assert not any(m.split('.')[0] in {'torch', 'monai'} for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("system", "task"), CASES)
def test_outputs_have_the_shapes_of_the_task(system, task):
    image, _ = batch(system)
    raw = predicted(built(system, task), image)
    assert ("mask_logits" in raw) == task.segments
    assert ("class_logits" in raw) == task.classifies
    if task.segments:
        assert raw["mask_logits"].shape[0::2] == (4, 64)
    if task.classifies:
        assert raw["class_logits"].shape == (4, 3)
    if system.name in {"multitask-us", "stunet"} and task.segments:
        assert raw["attention"].shape == (4, 1, 64, 64)
    else:
        assert "attention" not in raw


@pytest.mark.parametrize(("system", "task"), CASES)
def test_every_parameter_learns_and_the_loss_falls(system, task):
    net = built(system, task, **steady(system)).train()
    loss = system.loss(params_of(system), task, ClassBalance((4, 4, 4)))
    image, targets = batch(system, 6)
    # without normalisation a large first step overshoots
    optimiser = torch.optim.Adam(net.parameters(), 1e-3 if system.name == "ternausnet" else 1e-2)
    largest = {name: 0.0 for name, _ in net.named_parameters()}
    totals = []
    for _ in range(8):
        optimiser.zero_grad(set_to_none=True)
        losses = loss(net(image, Guide(targets.mask, 0.5)), targets)
        assert (losses.segmentation is not None) == task.segments
        assert (losses.classification is not None) == task.classifies
        losses.total.backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            largest[name] = max(largest[name], float(parameter.grad.abs().max()))
        optimiser.step()
        totals.append(float(losses.total.detach()))
    assert min(totals[-3:]) < 0.95 * totals[0], totals
    silent = {name for name, value in largest.items() if value <= 1e-8}
    assert {name for name in silent if not is_bias_before_normalisation(net, name)} == set()


@pytest.mark.parametrize(("system", "task"), CASES)
def test_evaluation_does_not_depend_on_the_batch(system, task):
    net = built(system, task)
    image, _ = batch(system, 5)
    whole = predicted(net, image)
    reversed_order = predicted(net, image.flip(0))
    single = predicted(net, image[2:3])
    for name, values in whole.items():
        # float32: 1e-5 of the largest value; a logit near 0 has no relative accuracy of its own.
        near = 1e-5 * float(np.abs(values).max())
        np.testing.assert_allclose(reversed_order[name][::-1], values, rtol=0, atol=near)
        np.testing.assert_allclose(single[name][0], values[2], rtol=0, atol=near)


@pytest.mark.parametrize(("system", "task"), CASES)
def test_saved_weights_give_the_same_results(system, task, tmp_path):
    net, other = built(system, task), built(system, task, seed=1)
    image, _ = batch(system, 2)
    net.train()(image)  # so that the running statistics differ from their start
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    for name, values in predicted(net, image).items():
        assert np.array_equal(predicted(other, image)[name], values)


@pytest.mark.parametrize(("system", "task"), CASES)
def test_equal_seeds_give_equal_networks_and_steps(system, task):
    image, targets = batch(system, 3)
    results = []
    for seed in (5, 5, 6):
        net = built(system, task, seed=seed).train()
        losses = system.loss(params_of(system), task, ClassBalance((1, 2, 3), (1.0, 0.5, 1.5)))(
            net(image), targets
        )
        losses.total.backward()
        first = next(net.parameters())
        results.append((float(losses.total.detach()), first.detach().clone(), first.grad.clone()))
    assert results[0][0] == results[1][0] != results[2][0]
    assert torch.equal(results[0][1], results[1][1])
    assert torch.equal(results[0][2], results[1][2])


@pytest.mark.parametrize(("system", "task"), CASES)
def test_decoded_results_are_probabilities(system, task):
    image, _ = batch(system, 3)
    raw = predicted(built(system, task), image)
    decoded = system.decode(params_of(system), raw)
    assert len(decoded) == 3
    for one in decoded:
        if task.classifies:
            assert one.scores.dtype == np.float64
            assert one.scores.sum() == pytest.approx(1, abs=1e-12)
            assert (one.scores >= 0).all()
        else:
            assert one.scores is None
        if task.segments:
            assert one.mask.shape == (64, 64)
            assert one.mask.dtype == np.float32
            assert 0 <= one.mask.min() <= one.mask.max() <= 1
        else:
            assert one.mask is None
        if one.attention is not None:
            assert one.attention.shape == (64, 64)


@pytest.mark.parametrize(("system", "task"), CASES)
def test_bad_input_is_refused_with_words(system, task):
    net = built(system, task).eval()
    image, _ = batch(system, 2)
    channels = image.shape[1]
    with pytest.raises(InputRefused, match=rf"expected: \(images, {channels} channels, 64, 64\)"):
        net(image[..., :48])
    with pytest.raises(InputRefused, match="image batch of shape"):
        net(image.repeat(1, 2, 1, 1))
    image[1, 0, 3, 3] = float("nan")
    with pytest.raises(InputRefused, match="NaN or infinite"):
        net(image)
    if system.name in CLASSIFIERS:
        with pytest.raises(ConfigError, match="from 32 on; nearest: 32"):
            built(system, task, shape=shape_of(system, 31))
    else:
        with pytest.raises(ConfigError, match="nearest: 64 or 80"):
            built(system, task, shape=shape_of(system, 70))


@pytest.mark.parametrize("system", named(set(NAMES) - CLASSIFIERS))
@pytest.mark.parametrize("size", [32, 48, 80])
def test_any_multiple_of_sixteen_and_colour_will_do(system, size):
    net = built(system, Task.BOTH, shape=Shape(3, size, 2)).eval()
    outputs = net(torch.rand(2, 3, size, size))
    assert outputs.mask_logits[-1].shape == (2, 1, size, size)
    assert outputs.class_logits.shape == (2, 2)


@pytest.mark.parametrize("system", named(CLASSIFIERS))
@pytest.mark.parametrize("size", [32, 75, 96])
def test_any_side_and_every_set_of_modalities_will_do(system, size):
    for modalities in system.takes:
        shape = shape_of(system, size, modalities=modalities)
        net = built(system, Task.CLASSIFICATION, shape=shape).eval()
        outputs = net(torch.rand(2, shape.channels, size, size))
        assert outputs.class_logits.shape == (2, 3)
        assert set(net.cam_layers()) == {mode.value for mode in modalities}


@pytest.mark.parametrize("system", named(CLASSIFIERS))
def test_modalities_a_network_cannot_take_are_refused(system):
    wrong = Shape(4, 64, 2, (Mode.CEUS, Mode.B)), Shape(2, 64, 2, (Mode.B,))
    for shape in wrong:
        with pytest.raises(ConfigError, match="channels; expected"):
            built(system, Task.CLASSIFICATION, shape=shape)


@pytest.mark.parametrize("system", SYSTEMS, ids=NAMES)
def test_an_answer_without_a_modality_is_promised_only_where_there_is_one(system):
    assert system.missing == (len(system.takes[0]) > 1)
    if not system.missing:
        return
    image, _ = batch(system, 3)
    image[1, 1:] = 0
    raw = predicted(built(system, Task.CLASSIFICATION), image)
    raw["present"] = np.array([[True, True], [True, False], [True, True]])
    both, alone, _ = system.decode(params_of(system), raw)
    assert both.modalities == system.takes[0]
    assert len(both.modality_weights) == 2
    assert alone.modalities == (Mode.B,)
    assert alone.modality_weights is None
    alike = np.exp(raw["branch_logits"][1, 0].astype(np.float64))
    np.testing.assert_allclose(alone.scores, alike / alike.sum(), rtol=1e-12)


@pytest.mark.parametrize("system", SYSTEMS, ids=NAMES)
def test_numbers_beside_the_picture_are_taken_where_promised(system):
    task = Task.CLASSIFICATION
    assert system.features == isinstance(built(system, task), FeatureNet)
    if not system.features:
        return
    shape = shape_of(system, features=("rise", "peak"))
    net = built(system, task, shape=shape, **steady(system)).train()
    net.standardise(torch.tensor([3.0, 0.0]), torch.tensor([2.0, 1.0]))
    image, targets = batch(system, 6)
    numbers = torch.randn(6, 2)
    numbers[0, 0] = float("nan")
    loss = system.loss(params_of(system), task, ClassBalance((4, 4, 4)))
    loss(net(image, None, numbers), targets).total.backward()
    for name, parameter in net.numbers.named_parameters():
        assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("system", named(CLASSIFIERS))
def test_an_ordinal_head_gives_scores_of_any_number_of_grades(system):
    task = Task.CLASSIFICATION
    image, targets = batch(system)
    for n_classes in (2, 4):
        net = built(system, task, shape=shape_of(system, n_classes=n_classes), head="ordinal")
        params = params_of(system, head="ordinal")
        label = torch.arange(4) % n_classes
        loss = system.loss(params, task, ClassBalance((9,) * n_classes))
        total = loss(net(image), Targets(targets.mask, targets.has_mask, label)).total
        total.backward()
        assert bool(torch.isfinite(total.detach()))
        for one in system.decode(params, predicted(net, image)):
            assert one.scores.shape == (n_classes,)
            assert one.scores.sum() == pytest.approx(1, abs=1e-12)
            assert (one.scores >= 0).all()


@pytest.mark.parametrize("system", SYSTEMS, ids=NAMES)
def test_nan_never_becomes_a_class_or_a_mask(system):
    params = params_of(system)
    for name, shape in (("class_logits", (2, 3)), ("mask_logits", (2, 1, 8, 8))):
        for bad in (np.nan, np.inf, -np.inf):
            values = np.zeros(shape, np.float32)
            values[1, ..., -1] = bad
            with pytest.raises(ModelRefused, match=f"{name}: output holds NaN"):
                system.decode(params, {name: values})
    with pytest.raises(ModelRefused, match="neither masks nor class scores"):
        system.decode(params, {})
    with pytest.raises(ModelRefused, match="dimensions"):
        system.decode(params, {"class_logits": np.zeros(3, np.float32)})
    with pytest.raises(ModelRefused, match=r"parts for \[1, 2\] images"):
        system.decode(
            params,
            {
                "class_logits": np.zeros((1, 3), np.float32),
                "mask_logits": np.zeros((2, 1, 8, 8), np.float32),
            },
        )


@pytest.mark.parametrize("system", SYSTEMS, ids=NAMES)
def test_unknown_and_impossible_parameters_are_refused(system):
    for wrong in ({"widht": 1}, {"width": 0}, {"segmentation_weight": 2}, {"dice_weight": -1}):
        with pytest.raises(ValidationError):
            system.params(wrong)
    with pytest.raises(ValidationError, match="frozen"):
        system.params().width = 2


@pytest.mark.parametrize("system", SYSTEMS, ids=NAMES)
def test_cards_name_real_parameters_and_say_something(system):
    card = system.card
    fields = set(system.params_type.model_fields)
    assert card.name == system.name
    assert card.title
    assert card.reference
    assert "Not a medical device" in card.intended_use
    assert card.open_choices
    for choice in card.open_choices:
        assert choice.topic
        assert choice.chosen
        named = {name.strip() for name in choice.param.split(",") if name.strip()}
        assert named <= fields, named - fields
    assert len({choice.topic for choice in card.open_choices}) == len(card.open_choices)
