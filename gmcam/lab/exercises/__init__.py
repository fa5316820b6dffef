"""Answer checks for the book's exercises: ``check("grad_cam.2", answer)``.

There is one file per chapter, imported when one of its exercises is first checked. Every exercise computes
its answers; none is typed in.
"""

from gmcam.lab.exercises.checking import Answers, Exercise, Verdict, all_exercises, check, exercise

__all__ = ["Answers", "Exercise", "Verdict", "all_exercises", "check", "exercise"]
