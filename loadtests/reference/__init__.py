"""The reference server: it answers at times known in advance, and tells when it really did.

Load generators are checked against it: what they report must be what `/truth` says.
"""

from loadtests.reference.config import ReferenceConfig
from loadtests.reference.process import Running, running
from loadtests.reference.truth import Truth

__all__ = ["ReferenceConfig", "Running", "Truth", "running"]
