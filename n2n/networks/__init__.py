"""Built-in teachers, and the measuring of any network."""

from n2n.networks.teachers import TEACHERS, build_teacher, build_teacher_for

__all__ = ["TEACHERS", "build_teacher", "build_teacher_for"]
