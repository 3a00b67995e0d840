"""What a driver is told from outside: to wait and to go, how many laps there are, and that the drive is over.

By the rules of the end-to-end class a driver hears camera, wheels and gear only. When to start and when to end is no
matter of driving, so whoever knows it (the evaluator, or a person) sets a parameter of the driver's node, e.g.
``ros2 param set /alpamayo_drive hold "the marshal says so"``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from rcl_interfaces.msg import Parameter, ParameterDescriptor, ParameterType, ParameterValue, SetParametersResult
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.node import Node

from closed_loop.control.driver import Driver
from closed_loop.ros.termination import DriveTermination

DRIVER_NAME = "alpamayo_drive"
# The orders, and what each is before it is given.
HOLD, LAPS_DONE, END, FOLDER = "hold", "laps_done", "end", "folder"
_ORDERS: Mapping[str, tuple[str | float, str]] = {
    HOLD: ("", "why the kart must stand; empty lets it go"),
    LAPS_DONE: (0.0, "laps driven so far, as counted by somebody else"),
    END: ("", "why the drive is over: the kart is braked and the node ends"),
}
_UNTOLD_S = 3.0  # so long after its start a driver waits for somebody who may tell it to wait
_PATIENCE_S = 0.5  # until an order without an answer is given again


class Orders:
    """The parameters of a driver's node; orders arrive in the node's executor.

    ``changed`` is called with a line for the log whenever the kart is to stand or may go, and after each lap.
    """

    def __init__(
        self,
        node: Node,
        driver: Driver,
        termination: DriveTermination,
        folder: str,
        changed: Callable[[str, str], None],
    ) -> None:
        self._driver, self._termination, self._changed = driver, termination, changed
        self._hold = ""
        self._waits_until_s = -math.inf
        for name, (default, text) in _ORDERS.items():
            node.declare_parameter(name, default, ParameterDescriptor(description=text))
        text = "where this drive is written"
        node.declare_parameter(FOLDER, folder, ParameterDescriptor(description=text, read_only=True))
        node.add_on_set_parameters_callback(self._ordered)

    def wait(self, now_s: float) -> None:
        """Begin by waiting for an order, a few seconds at most."""
        self._waits_until_s = now_s + _UNTOLD_S
        self._driver.hold("waits for the evaluator")

    def tick(self, now_s: float) -> None:
        """Go when nobody has said anything for long enough."""
        if self._waits_until_s <= now_s and self._waits_until_s != -math.inf:
            self._waits_until_s = -math.inf
            self.hold("")
            missing = f"no evaluator has set {HOLD} within {_UNTOLD_S:g} s: laps and leaving the road are not counted"
            self._changed("not told to wait", missing)

    def hold(self, why: str) -> None:
        """Stand for this reason; go where it is empty."""
        self._waits_until_s = -math.inf
        self._driver.hold(why)
        if why != self._hold:
            self._changed("told to wait" if why else "told to go", why)
        self._hold = why

    def laps(self, done: float) -> None:
        """Take the count of somebody else."""
        if done != self._termination.laps_done:
            self._termination.laps_done = done
            self._changed("lap", f"{done:g} done")

    def _ordered(self, parameters: list[Any]) -> SetParametersResult:
        given = {each.name: each.value for each in parameters if each.name in _ORDERS}
        for name, value in given.items():
            if type(value) is not type(_ORDERS[name][0]) or (isinstance(value, float) and not 0.0 <= value <= 1e6):
                return SetParametersResult(
                    successful=False, reason=f"{name} := {value!r}. Expected: {_ORDERS[name][1]}"
                )
        if LAPS_DONE in given:
            self.laps(given[LAPS_DONE])
        if HOLD in given:
            self.hold(given[HOLD])
        if given.get(END):
            self._termination.give_up(given[END])
        return SetParametersResult(successful=True)


class DriverLine:
    """From another node to the driver's: gives orders until they are heard, and asks for its folder."""

    def __init__(self, node: Node) -> None:
        self.folder = ""  # of the drive, empty until the driver has answered
        self._set: Any = node.create_client(SetParameters, f"/{DRIVER_NAME}/set_parameters")
        self._get: Any = node.create_client(GetParameters, f"/{DRIVER_NAME}/get_parameters")
        self._heard: dict[str, str | float] = {}
        self._told: Mapping[str, str | float] = {}
        self._told_s = self._asked_s = -math.inf

    def tell(self, orders: Mapping[str, str | float], now_s: float) -> None:
        """Give the orders that the driver has not heard yet; to be called several times a second."""
        if not self._set.service_is_ready():
            self._heard.clear()  # a driver that comes later, or anew, is told everything
            return
        if not self.folder and now_s - self._asked_s > _PATIENCE_S:
            self._asked_s = now_s
            self._get.call_async(GetParameters.Request(names=[FOLDER])).add_done_callback(self._found)
        new = {name: value for name, value in orders.items() if self._heard.get(name) != value}
        if new and (new != self._told or now_s - self._told_s > _PATIENCE_S):
            self._told, self._told_s = new, now_s
            request = SetParameters.Request(parameters=[_parameter(name, value) for name, value in new.items()])
            self._set.call_async(request).add_done_callback(lambda done: self._answered(new, done.result()))

    def _answered(self, told: Mapping[str, str | float], answer: SetParameters.Response | None) -> None:
        if answer is not None and all(each.successful for each in answer.results):
            self._heard |= told

    def _found(self, done: Any) -> None:  # noqa: ANN401 - a future of rclpy
        answer = done.result()
        if answer is not None and answer.values:
            self.folder = answer.values[0].string_value


def _parameter(name: str, value: str | float) -> Parameter:
    if isinstance(value, str):
        return Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value))
    return Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value))
