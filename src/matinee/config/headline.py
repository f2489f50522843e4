"""What callbacks monitor, taken from the task.

``headline`` as the ``monitor`` or the ``mode`` of a callback stands for the metric by which the task
selects models, and for its direction. So one file of callbacks serves every task, and a run records the
metric itself.
"""

from typing import Any

from matinee.config.targets import find_target
from matinee.errors import MatineeError

HEADLINE = "headline"


def follow_headline(tree: dict[str, Any]) -> None:
    """Replace ``headline`` in the callbacks of a config, in place.

    Args:
        tree: A checked config as plain values.

    Raises:
        MatineeError: If the task declares no headline metric.
    """
    following = [
        (node, key)
        for node in (tree.get("callbacks") or {}).values()
        if isinstance(node, dict)
        for key in ("monitor", "mode")
        if node.get(key) == HEADLINE
    ]
    if following:
        target = tree["task"]["_target_"]
        made_by = find_target(target, "task")
        task = getattr(made_by, "__self__", made_by)  # the class of a method such as from_data
        chosen = tree["task"].get("headline")  # of a task that has several
        headline = getattr(task, "headlines", {}).get(chosen, getattr(task, "headline", None))
        if headline is None:
            raise MatineeError(
                f"task._target_={target} declares no headline metric; give callbacks a monitor and a mode."
            )
        for node, key in following:
            node[key] = getattr(headline, key)
