"""Imported by the server of notebooks' processes: keys name the source that it has in memory, whatever is
edited while it lives.
"""

from fedlora_kit.experiments.source import source_digest

source_digest()
