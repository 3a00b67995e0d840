"""Record front frames and poses to a bag: ``ros2 launch collector record.launch.py out:=runs/lap``."""

from collector.ros.launching import describe


def generate_launch_description():
    """Called by ``ros2 launch``; ``--show-args`` lists the arguments."""
    return describe("record")
