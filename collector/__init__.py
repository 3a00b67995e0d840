"""Recording and curating: bags from the simulator, samples whose reasoning and path agree."""

from collector.common.start import begin

begin()
