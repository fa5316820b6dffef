"""Several classes as one target, such as ImageNet's five cats."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gmcam.network import Network
from gmcam.outputs import Target


@dataclass(frozen=True)
class Group:
    """Classes that count as one: ``classes``, names or indices, and the group's ``name``."""

    classes: tuple[str | int, ...]
    name: str


def group(classes: Sequence[str | int], name: str = "") -> Group:
    """Several classes as one target, for ``explain`` and what else takes a class.

    Its score is ``log Σ_c exp(logit_c)`` over its classes, and its probability the sum of theirs. ``name``:
    for figures and messages; by default the classes' names. ``ValueError`` for fewer than two classes; and,
    where it is used, for unknown classes, one in two groups, and a network without softmax or class names.

    >>> gmcam.group(["tabby", "tiger cat"], "cat").name
    'cat'
    """
    if isinstance(classes, str) or len(classes) < 2:
        raise ValueError(f"expected a list of two classes or more, got {classes!r}: name the others")
    return Group(tuple(classes), name or ", ".join(map(str, classes)))


class Grouped(Network):
    """A network whose first classes are ``groups``; the classes in no group follow, each by itself.

    ``columns``: for each of its classes, the indices of that class in the network. ``ValueError`` as for
    ``group``."""

    def __init__(self, network: Network, groups: Sequence[Group]) -> None:
        vars(self).update(vars(network))
        if network.output == "sigmoid" or not network.classes:
            fault = "sigmoids" if network.classes else "no class names"
            raise ValueError(f"expected class names and a softmax for a group, got {fault}: see gmcam.wrap")
        joined = [tuple(network.class_index(each) for each in group.classes) for group in groups]
        seen = [index for indices in joined for index in indices]
        for index in (index for index in seen if seen.count(index) > 1):
            name = network.class_name(index)
            raise ValueError(f"expected each class in one group, got {name!r} twice: take it out of one")
        rest = [index for index in range(len(network.classes)) if index not in seen]
        self.network, self.count, self.columns = network, len(groups), (*joined, *((i,) for i in rest))
        self.classes = (*(group.name for group in groups), *(network.classes[i] for i in rest))

    def logits_of(self, output: Any) -> Tensor:
        return self._joined(self.network.logits_of(output), torch.logsumexp)

    def probabilities_of(self, output: Any) -> Tensor:
        return self._joined(self.network.probabilities_of(output), torch.sum)

    def linear_scores(self, output: Any, target: Tensor) -> Tensor:
        """Σ_c logit_c ∂score/∂logit_c of each row's target, (T,): the score without the group's entropy."""
        logits, targets = self.network.logits_of(output), target.tolist()
        rows = [row[list(self.columns[column])] for row, column in zip(logits, targets, strict=True)]
        return torch.stack([(row.softmax(0) * row).sum() for row in rows])

    def _joined(self, values: Tensor, join: Callable[..., Tensor]) -> Tensor:
        self.network.check_class_names(values.shape[1])
        groups = [join(values[:, list(columns)], 1) for columns in self.columns[: self.count]]
        return torch.cat([torch.stack(groups, 1), values[:, [i for (i,) in self.columns[self.count :]]]], 1)


def resolved(network: Network, target: Any) -> tuple[Network, Target]:
    """The network in which the groups of ``target`` are classes, and the target as class indices."""
    listed = list(target) if isinstance(target, list | tuple) else [target]
    groups = list(dict.fromkeys(each for each in listed if isinstance(each, Group)))
    if not groups:
        return network, network.target_indices(target)
    grouped = Grouped(network, groups)

    def index(each: Any) -> int:
        if isinstance(each, Group):
            return groups.index(each)
        if (column := (network.class_index(each),)) in grouped.columns:
            return grouped.columns.index(column)
        raise ValueError(f"expected a class outside the groups, got {each!r}: take it out of one")

    indices = [index(each) for each in listed]
    return grouped, indices[0] if isinstance(target, Group) else torch.tensor(indices)
