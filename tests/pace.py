"""Limits of time, set on one machine and held on slower and busier ones too."""

import os
import time

SECONDS_PER_LOOP = 0.03  # of the loop below, on the machine that the limits were set on


def slowdown() -> float:
    """How many times longer work takes here and now than on that machine; at least 1."""

    def loop():
        started, total = time.perf_counter(), 0
        for number in range(10**6):
            total += number
        return time.perf_counter() - started

    slower = min(loop() for _ in range(5)) / SECONDS_PER_LOOP
    busier = os.getloadavg()[0] / os.cpu_count()
    return max(1, slower) * max(1, busier)


def patient(measure, limit, tries=3):
    """Assert that the shortest of a few measurements is within the limit on a machine of this pace."""
    best, factor = float("inf"), 1.0
    for _ in range(tries):
        factor = max(factor, slowdown())
        best = min(best, measure())
        if best < limit:
            break
    print(f"{best:.3f} s of {limit} s, on a machine slower by a factor of {factor:.1f}")
    assert best < limit * factor
