"""Which layers of a network give maps, how their outputs are arranged, and which layer is the default."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.modules import batchnorm, conv, instancenorm, pooling

from gmcam._hooks import Extra, call, in_fast_layout, tensors_in, with_gradients
from gmcam.chunks import is_out_of_memory
from gmcam.reshape import MOST_PREFIX, Reshape, channels_last, tokens

# They return their input in evaluation mode, or attention's weights: never the layer that is meant.
_TRANSPARENT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Identity, nn.Softmax)
_NORMS = (batchnorm._BatchNorm, instancenorm._InstanceNorm, nn.GroupNorm)
_POOLS = (pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd)
# Their outputs are (N, K, …) whatever surrounds them.
CHANNELS_FIRST = (conv._ConvNd, *_NORMS, *_POOLS, nn.Upsample, nn.PixelShuffle)
LATE = 0.9  # the default layer comes after this share of the layers with weights that see maps
PROJECTIONS = 5  # queries, keys and values, of which two may have a norm
OFFERS = (
    "gmcam.Network(module, reshape=…) with gmcam.reshape.tokens(prefix=…, grid=…), .tokens_first(), "
    ".channels_last(), .frames(T), or a function of your own"
)
_Form = tuple[tuple[int, ...], Reshape | None]  # (K, *cells), and how an output becomes maps
_Forms = dict[str, _Form]


class Visit(NamedTuple):
    """One module's part in a forward pass: its output's shape, and how often it ran. ``weights``: it has some
    and no children; ``channels``: then their first dimension. ``edge``: where gradients of the output
    arrive, None if there are none. ``several``: the output holds more tensors."""

    name: str
    kind: type[nn.Module]
    shape: tuple[int, ...]
    calls: int
    weights: bool = False
    channels: int = 1
    edge: GradientEdge | None = None
    several: bool = False


class Discovery(NamedTuple):
    """Dictionaries by dotted path. ``shapes``: (K, *cells) of every map, in the order they run. ``stages``: a
    map's path by resolution, the default last. ``arrangements``: how an output becomes maps, None for one
    that is. ``depths``: share of the layers with weights that have run when it returns. ``fault``: why the
    default layer must be named, if it must."""

    shapes: dict[str, tuple[int, ...]]
    stages: dict[str, str]
    arrangements: dict[str, Reshape | None]
    depths: dict[str, float]
    fault: str = ""


def trace(
    module: nn.Module, inputs: Tensor, extra: Extra = (), gradients: bool = False
) -> tuple[list[Visit], Any]:
    """Run the network once: its modules that give a tensor, in the order they finished, and the output.

    ``gradients``: parameters stay frozen, so outputs carry gradients if they depend on ``inputs``."""
    visits: dict[str, Visit] = {}

    def note(name: str, layer: nn.Module, _arguments: Any, output: Any) -> None:
        if found := tensors_in(output):
            tensor, calls = found[0], visits.pop(name).calls + 1 if name in visits else 1
            own = [] if layer._modules else [p for p in layer._parameters.values() if p is not None]
            channels = own[0].shape[0] if own and own[0].ndim else 1
            edge = get_gradient_edge(tensor) if tensor.requires_grad else None
            visit = (name, type(layer), tuple(tensor.shape), calls, bool(own), channels, edge, len(found) > 1)
            visits[name] = Visit(*visit)

    def run(start: Tensor) -> Any:
        visits.clear()
        return call(module, start, extra)

    with with_gradients(module, gradients), ExitStack() as stack:
        for name, part in module.named_modules():
            if name and not isinstance(part, torch.jit.ScriptModule):  # it takes no hooks
                stack.callback(part.register_forward_hook(partial(note, name)).remove)
        output = in_fast_layout(run, inputs.detach().requires_grad_(gradients and inputs.is_floating_point()))
    return list(visits.values()), output


def discover(
    module: nn.Module,
    inputs: Tensor,
    reshape: Reshape | None = None,
    last: str | None = None,
    extra: Extra = (),
) -> Discovery:
    """Run the network once and list its maps, its stages and the default layer.

    Outputs are arranged by ``reshape``, or else by their shape: channels first, channels last, or tokens
    after up to eight others, on a grid of the network's convolutions and poolings or its halvings. A stage is
    a resolution with a convolution or a linear layer; its map is the last of the least nested modules
    (``layer1`` rather than ``layer2.0.bn1`` in a ResNet). The default is the last map, in the order they
    finish, whose cells influence the output, not a final layer with one map per class; ``last`` replaces it.
    """
    with with_gradients(module):
        try:
            visits, output = trace(module, inputs, extra, gradients=True)
        except Exception as error:  # such as an operation without a derivative
            if is_out_of_memory(error):
                raise
            visits, output = trace(module, inputs, extra)
        outputs = [tensor for tensor in tensors_in(output) if tensor.requires_grad]
        arranged = partial(_by_reshape, reshape, len(inputs)) if reshape else _by_shape(visits, inputs)
        forms = {visit.name: form for visit in visits if (form := arranged(visit)) is not None}
        scores = next((tuple(tensor.shape) for tensor in tensors_in(output) if tensor.ndim > 1), (0, 0))
        before = _before_scores(visits, scores, last)
        maps = list(_maps(before, forms, bool(outputs)))
        shapes = {visit.name: forms[visit.name][0] for visit in maps}
        grids = {shape[1:] for shape in shapes.values()}
        convolved = {cells for cells in grids if reshape or _with_layers(cells, before, shapes)}
        candidates = [visit for visit in maps if shapes[visit.name][1:] in convolved]
        final = _last_with_influence(candidates, forms, outputs)
    arrangements = {name: arrangement for name, (_, arrangement) in forms.items()}
    total, done = max(sum(visit.weights for visit in visits), 1), 0
    depths = {visit.name: (done := done + visit.weights) / total for visit in visits}
    if final is None:
        fault = "expected a convolutional layer with height and width, got none: name a layer, or pass"
        return Discovery({}, {}, arrangements, depths, f"{fault} {OFFERS}")
    final = _before_attention(final, before, maps, shapes)
    chosen = final.name if last is None else last
    size = shapes.get(chosen, shapes[final.name])[1:]
    stages = {}
    # From fine to coarse; the default's resolution comes last, also in a decoder.
    similar = {cells for cells in convolved if _similar(cells, inputs.shape[2:])}
    for cells in [*sorted((similar if size in similar else convolved) - {size}, reverse=True), size]:
        names = [visit.name for visit in reversed(maps) if shapes[visit.name][1:] == cells]
        stages["x".join(map(str, cells))] = min(names, key=lambda name: name.count("."))
    stages["x".join(map(str, size))] = chosen
    few = max(MOST_PREFIX, getattr(reshape, "count", 1))  # class tokens, or one vector per frame, are pooled
    later = [v for v in before[before.index(final) + 1 :] if v.weights and v.name not in forms]
    later = [v for v in later if math.prod(v.shape) > few * v.channels and (v.edge or not outputs)]
    fault = "" if last else _too_early(final, later, round(depths[final.name] * total), stages)
    skipped = final is not candidates[-1] and forms[final.name][1] is not None and reshape is None
    if skipped and not last and depths[final.name] - 1 / total < LATE:
        last_one = f"{final.name!r}, before {1 - depths[final.name]:.0%} of the layers"
        fault = "expected a layer by name for tokens without a reshape, as the last with influence is"
        fault += f" {last_one}: name it, or pass {OFFERS}"
    return Discovery(shapes, stages, arrangements, depths, fault)


def _by_reshape(reshape: Reshape, count: int, visit: Visit) -> _Form | None:
    """The form by a user's ``reshape``, which may raise anything for outputs it was not written for."""
    with suppress(Exception):
        maps = reshape(torch.empty(visit.shape))
        if 3 <= maps.ndim <= 5 and len(maps) == count:
            return tuple(maps.shape[1:]), reshape
    return None


def _by_shape(visits: Sequence[Visit], inputs: Tensor) -> Callable[[Visit], _Form | None]:
    """From a visit to its form, None where the shape fits no arrangement or more than one."""
    count, sides = len(inputs), tuple(inputs.shape[2:])
    ndim = 2 + len(sides)
    linear = [len(visit.shape) for visit in visits if issubclass(visit.kind, nn.Linear | nn.LayerNorm)]
    rows = [len(visit.shape) for visit in visits if issubclass(visit.kind, nn.Linear)]
    batched = [visit for visit in visits if len(visit.shape) == ndim and visit.shape[0] == count]
    maps = [visit for visit in batched if issubclass(visit.kind, CHANNELS_FIRST)]
    known = {visit.shape[2:] for visit in maps}
    if not any(issubclass(visit.kind, conv._ConvNd) for visit in maps):  # patches, but no convolution
        strides = [each for each in range(2, min(sides) // 2 + 1) if not any(side % each for side in sides)]
        known |= {tuple(side // stride for side in sides) for stride in strides}
    grids = known | {half for grid in known if _similar(grid, sides) for half in _halvings(grid)}

    def form(visit: Visit) -> _Form | None:
        shape = visit.shape
        if shape[:1] != (count,):
            return None
        first = len(shape) == ndim
        if issubclass(visit.kind, CHANNELS_FIRST):
            return (shape[1:], None) if first else None
        forms: list[_Form] = []
        if first and (shape[2:] in grids or not (3 in linear or ndim in linear)):
            forms.append((shape[1:], None))
        if first and ndim > 3 and ndim in rows and shape[1:-1] in grids:
            forms.append(((shape[-1], *shape[1:-1]), channels_last()))
        for prefix in range(MOST_PREFIX + 1) if len(shape) == 3 and 3 in linear else ():
            fits = [g for g in grids if _similar(g, sides) and math.prod(g) == shape[1] - prefix]
            if fits:
                square = len(set(fits[0])) == 1 and len(sides) == 2  # then at another input size, too
                arrangement = tokens(prefix, None if square else fits[0])
                forms += [((shape[2], *grid), arrangement) for grid in fits]
                break
        return forms[0] if len(forms) == 1 else None

    return form


def _similar(grid: Sequence[int], sides: Sequence[int]) -> bool:
    """Whether a grid has the ratio of the input's sides, within a cell."""
    pairs = zip(grid, sides, strict=False)
    return len(grid) == len(sides) and all(abs(g * sides[0] - grid[0] * s) <= max(sides) for g, s in pairs)


def _halvings(grid: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for up in (0, 1):
        sides = tuple(grid)
        while max(sides) > 2:
            yield (sides := tuple((side + up) // 2 for side in sides))


def _before_scores(visits: Sequence[Visit], scores: Sequence[int], last: str | None) -> Sequence[Visit]:
    """The visits before a final layer with one map per class, or all such layers where the network returns
    maps (``scores`` is the output's shape), unless ``last`` is it or a later one."""
    end = max((i for i, visit in enumerate(visits) if visit.weights), default=0)
    shape, classes = visits[end].shape if visits else (), scores[1]
    convolution = visits and issubclass(visits[end].kind, conv._ConvNd) and shape[1:2] == (classes,)
    linear = len(shape) > 2 and issubclass(visits[end].kind, nn.Linear) and shape[-1] == classes
    if not (convolution or linear) or any(visit.name == last for visit in visits[end:]):
        return visits
    return _before_scores(visits[:end], scores, last) if len(scores) > 2 else visits[:end]


def _maps(visits: Sequence[Visit], forms: _Forms, gradients: bool) -> Iterator[Visit]:
    """Those that give one map with cells per pass. With ``gradients``: and depend on the input."""
    seen = set()
    for visit in visits:
        edge = visit.edge and (visit.edge.node, visit.edge.output_nr)
        wrapper = visit.several and edge in seen  # the tensor of a layer inside, beside what was made of it
        seen.add(edge)
        if visit.name not in forms or visit.calls > 1 or issubclass(visit.kind, _TRANSPARENT) or wrapper:
            continue
        if math.prod(forms[visit.name][0][1:]) > 1 and (edge or not gradients):
            yield visit


def _with_layers(cells: tuple[int, ...], visits: Sequence[Visit], shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether a layer that mixes channels runs at this resolution, and not only a pooling."""
    at = [i for i, visit in enumerate(visits) if shapes.get(visit.name, ())[1:] == cells]
    few = [v for v in visits[at[0] : at[-1] + 1] if v.weights and not issubclass(v.kind, _NORMS)]
    return any(math.prod(v.shape) > MOST_PREFIX * v.channels or v.name in shapes for v in few)


def _last_with_influence(maps: Sequence[Visit], forms: _Forms, outputs: Sequence[Tensor]) -> Visit | None:
    """The last of ``maps`` whose cells influence the output; without any, or without gradients, the last."""
    logits = [tensor for tensor in outputs[:1] if tensor.ndim == 2] or outputs  # else a list of detections
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(t.shape, generator=generator).to(t) for t in logits]
    rest, size = [visit for visit in reversed(maps) if visit.edge], 1
    with suppress(Exception):  # a backward pass that the network does not support
        while rest and logits:  # a few at a time, so that the backward pass is only as deep as needed
            part, rest, size = rest[:size], rest[size:], 2 * size
            edges: list[Any] = [visit.edge for visit in part]
            values = torch.autograd.grad(logits, edges, vectors, retain_graph=True, allow_unused=True)
            for visit, value in zip(part, values, strict=True):
                if value is not None:
                    arrangement = forms[visit.name][1]
                    if (value if arrangement is None else arrangement(value)).any():
                        return visit
    return maps[-1] if maps else None


def _before_attention(
    final: Visit, visits: Sequence[Visit], maps: Sequence[Visit], shapes: dict[str, tuple[int, ...]]
) -> Visit:
    """The map that enters a block, where ``final`` is a projection inside it, such as keys and values: after
    the block only the class token has influence, and each projection holds only a part of it."""
    names, block = [visit.name for visit in visits], final.name.rpartition(".")[0]
    while block and block not in names:  # such as a ModuleList
        block = block.rpartition(".")[0]
    projection = any(v.edge == final.edge and issubclass(v.kind, nn.Linear) for v in visits)
    if final.edge is None or not projection or not block:
        return final
    start = next(i for i, name in enumerate(names) if name.startswith(f"{block}."))
    inside = sum(visit.weights for visit in visits[start : visits.index(final) + 1])
    cells = shapes[final.name][1:]
    entering = [visit for visit in maps if visit.name in names[:start] and shapes[visit.name][1:] == cells]
    return entering[-1] if entering and inside <= PROJECTIONS else final


def _too_early(final: Visit, later: Sequence[Visit], done: int, stages: dict[str, str]) -> str:
    """Why the default layer must be named: too many layers ``later`` have cells in no known arrangement."""
    if done >= LATE * (done + len(later)):
        return ""
    named = ", ".join(f"{name} ({path})" for name, path in stages.items())
    return (
        f"expected maps late in the network, got {final.name!r} as the last, before {len(later)} layers of "
        f"other shapes, such as {later[-1].shape} at {later[-1].name!r}: name a layer, by resolution "
        f"{named}, or pass {OFFERS}"
    )
