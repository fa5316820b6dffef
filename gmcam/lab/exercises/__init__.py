"""Answer checks for the book's exercises: ``check("grad_cam.2", answer)``.

One file per chapter, of the chapter's name, imported when an exercise of it is first asked for. Every
exercise computes its answers; none is typed in.
"""

from gmcam.lab.exercises.checking import Answers, Exercise, Verdict, all_exercises, check, exercise

__all__ = ["Answers", "Exercise", "Verdict", "all_exercises", "check", "exercise"]
