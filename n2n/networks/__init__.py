"""Built-in teachers, and the measuring of any network."""

from n2n.networks.count import macs, parameters, size_mb
from n2n.networks.latency import Latency, Timings, latency
from n2n.networks.memory import training_bytes
from n2n.networks.teachers import TEACHERS, build_teacher
from n2n.networks.untouched import untouched

__all__ = [
    "TEACHERS",
    "Latency",
    "Timings",
    "build_teacher",
    "latency",
    "macs",
    "parameters",
    "size_mb",
    "training_bytes",
    "untouched",
]
