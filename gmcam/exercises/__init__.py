"""Answer checks for the book's exercises: ``check("grad_cam.2", answer)``.

One file per chapter, of the chapter's name. Every exercise computes its answers; none is typed in.
"""

import importlib
import pkgutil

from gmcam.exercises.checking import EXERCISES, Answers, Exercise, Verdict, check, exercise

for _chapter in pkgutil.iter_modules(__path__):  # each registers its exercises
    importlib.import_module(f"{__name__}.{_chapter.name}")

__all__ = ["EXERCISES", "Answers", "Exercise", "Verdict", "check", "exercise"]
