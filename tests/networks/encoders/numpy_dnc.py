"""A DNC in NumPy, one sequence at a time and one cell at a time, spelled as the papers spell it.

It shares no code with `matinee.networks.encoders.dnc`: only its parameters (a mapping from the name to the
array), the order of the parts of the interface vector, and the constant ε of the norms, the
allocation and the sharpening.
"""

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np

EPSILON = 1e-6


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def oneplus(x):
    return 1 + np.log1p(np.exp(x))


def softmax(x):
    exponentials = np.exp(x - np.max(x))
    return exponentials / exponentials.sum()


def cosine(u, v):
    return u @ v / (np.sqrt(u @ u + EPSILON) * np.sqrt(v @ v + EPSILON))


def content_weights(memory, key, strength, mask):
    return softmax(np.array([strength * cosine(key * mask, cell * mask) for cell in memory]))


def allocation_weights(usage):
    usage = EPSILON + (1 - EPSILON) * usage
    weights = np.zeros_like(usage)
    full_so_far = 1.0
    for cell in sorted(range(len(usage)), key=lambda i: (usage[i], i)):
        weights[cell] = (1 - usage[cell]) * full_so_far
        full_so_far *= usage[cell]
    return weights


def sharpen(weights, exponent):
    powers = ((weights + EPSILON) / np.max(weights + EPSILON)) ** exponent
    return powers / powers.sum()


def split_interface(xi, options):
    """Cut ξ into its parts, squashed, as a namespace; masks are ones where there is no masking."""
    width, reads = options["cell_dim"], options["num_reads"]
    position = 0

    def take(count, size=None):
        nonlocal position
        total = count * (size or 1)
        part = xi[position : position + total]
        position += total
        return part if size is None else part.reshape(count, size)

    parts = SimpleNamespace(
        read_keys=take(reads, width), write_key=take(width), write_vector=take(width)
    )
    parts.read_strengths, parts.write_strength = oneplus(take(reads)), oneplus(take(1))[0]
    if options["link_sharpening"]:
        parts.backward_sharpness, parts.forward_sharpness = oneplus(take(2, reads))
    parts.free_gates = sigmoid(take(reads))
    parts.allocation_gate, parts.write_gate = sigmoid(take(2))
    parts.erase_vector = sigmoid(take(width))
    parts.read_masks, parts.write_mask = np.ones((reads, width)), np.ones(width)
    if options["masking"]:
        parts.read_masks, parts.write_mask = sigmoid(take(reads, width)), sigmoid(take(width))
    parts.read_modes = np.array([softmax(row) for row in take(reads, 3)])
    assert position == len(xi)
    return parts


def control(weights, options, x, hidden, carry, reads):
    """One step of the controller: a new (h, c); c is None for a GRU."""
    entering = weights["input_gates.weight"] @ x + weights["input_gates.bias"]
    entering = entering + weights["read_gates.weight"] @ reads.ravel()
    staying = weights["hidden_gates.weight"] @ hidden + weights["hidden_gates.bias"]
    if options["controller"] == "lstm":
        i, f, o, g = np.split(entering + staying, 4)
        carry = sigmoid(f) * carry + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(carry), carry
    (r, z, n), (r_hidden, z_hidden, n_hidden) = np.split(entering, 3), np.split(staying, 3)
    update = sigmoid(z + z_hidden)
    candidate = np.tanh(n + sigmoid(r + r_hidden) * n_hidden)
    return (1 - update) * candidate + update * hidden, None


def run(weights: Mapping[str, np.ndarray], options: Mapping, inputs: np.ndarray):
    """Run one sequence, (length, input_dim), from the empty state.

    Returns the outputs [h; r] of all steps and a list with the state after each step.
    """
    num_cells, width = options["num_cells"], options["cell_dim"]
    num_reads, hidden_dim = options["num_reads"], options["hidden_dim"]
    memory = np.zeros((num_cells, width))
    usage, precedence = np.zeros(num_cells), np.zeros(num_cells)
    links = np.zeros((num_cells, num_cells))
    write_weights = np.zeros(num_cells)
    read_weights = np.zeros((num_reads, num_cells))
    reads = np.zeros((num_reads, width))
    hidden, carry = np.zeros(hidden_dim), np.zeros(hidden_dim)
    outputs, states = [], []
    for x in inputs:
        hidden, carry = control(weights, options, x, hidden, carry, reads)
        xi = weights["interface.weight"] @ hidden + weights["interface.bias"]
        interface = split_interface(xi, options)

        retention = np.ones(num_cells)
        for r in range(num_reads):
            retention *= 1 - interface.free_gates[r] * read_weights[r]
        usage = (usage + write_weights - usage * write_weights) * retention

        allocation = allocation_weights(usage)
        content = content_weights(
            memory, interface.write_key, interface.write_strength, interface.write_mask
        )
        gate = interface.allocation_gate
        write_weights = interface.write_gate * (gate * allocation + (1 - gate) * content)

        if options["deallocation"]:
            memory = memory * np.outer(retention, np.ones(width))
        memory = memory * (1 - np.outer(write_weights, interface.erase_vector))
        memory = memory + np.outer(write_weights, interface.write_vector)

        new_links = np.zeros_like(links)
        for i in range(num_cells):
            for j in range(num_cells):
                if i != j:
                    kept = 1 - write_weights[i] - write_weights[j]
                    new_links[i, j] = kept * links[i, j] + write_weights[i] * precedence[j]
        links = new_links
        precedence = (1 - write_weights.sum()) * precedence + write_weights

        new_read_weights, reads = np.zeros_like(read_weights), np.zeros_like(reads)
        for r in range(num_reads):
            backward, forward = links.T @ read_weights[r], links @ read_weights[r]
            if options["link_sharpening"]:
                backward = sharpen(backward, interface.backward_sharpness[r])
                forward = sharpen(forward, interface.forward_sharpness[r])
            content = content_weights(
                memory,
                interface.read_keys[r],
                interface.read_strengths[r],
                interface.read_masks[r],
            )
            mode = interface.read_modes[r]
            new_read_weights[r] = mode[0] * backward + mode[1] * content + mode[2] * forward
            reads[r] = memory.T @ new_read_weights[r]
        read_weights = new_read_weights

        outputs.append(np.concatenate([hidden, reads.ravel()]))
        controller = (hidden,) if options["controller"] == "gru" else (hidden, carry)
        states.append(
            {
                "memory": memory,
                "usage": usage,
                "precedence": precedence,
                "links": links,
                "write_weights": write_weights,
                "read_weights": read_weights,
                "read_vectors": reads,
                "controller": controller,
            }
        )
    return np.array(outputs), states
