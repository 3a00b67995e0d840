"""Record front frames and poses to a bag: ``ros2 launch collector record.launch.py out:=runs/lap``."""

from launch import LaunchDescription

from collector.ros.launch_description import describe
from collector.ros.parameters import RECORD_NODE, Program, RecordConfig, SimulatorParameters


def generate_launch_description() -> LaunchDescription:
    """Called by ``ros2 launch``; ``--show-args`` lists the arguments."""
    # By name: recording must not need the driver's packages.
    check = "closed_loop.start_checks:check_simulator"
    simulator = Program("simulator", "closed_loop.simulator.node", SimulatorParameters, "simulator", check)
    return describe(RecordConfig, RECORD_NODE, simulator)
