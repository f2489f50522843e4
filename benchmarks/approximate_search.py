"""Exact and approximate search for the best 20 items, by catalogue size: cost and recall.

    pip install faiss-cpu
    python benchmarks/approximate_search.py [--items 10000 100000 1000000] [--queries 512] [--spread 0.5]

Items lie around cluster centres, ``spread`` wide, and so do the queries: trained embeddings have
neighbourhoods, and random ones have none, which is the worst case (``--spread 100``). Exact search is that of
``matinee recommend``, a matrix product and the top-k for some hundred queries at once, and the same for one
query at a time. The index is HNSW (Malkov & Yashunin, TPAMI 2018) of faiss, by inner products, with 16 links
an item; ``efSearch`` trades time for recall. One thread. ``repaid after`` is the number of queries, asked at
once, whose search must be approximate before the time to build the index is repaid.
"""

import argparse
import time

import faiss
import numpy as np
import torch

TOP_K, DIM, LINKS, ALONE = 20, 64, 16, 32
SCORES_AT_ONCE = 2**26


def embeddings(
    count: int, spread: float, rng: np.random.Generator, centres: np.ndarray
) -> np.ndarray:
    """Draw rows around random centres, (count, DIM)."""
    rows = centres[rng.integers(0, len(centres), count)]
    return (rows + spread * rng.standard_normal((count, DIM))).astype(np.float32)


def exact(items: torch.Tensor, queries: torch.Tensor, at_once: int = 512) -> torch.Tensor:
    """Find the best items of all queries, (queries, TOP_K)."""
    at_once = max(1, min(at_once, SCORES_AT_ONCE // len(items)))
    return torch.cat([(part @ items.T).topk(TOP_K).indices for part in queries.split(at_once)])


def main() -> None:
    """Print one row for each size of the catalogue and effort of the search."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=512)
    parser.add_argument("--spread", type=float, default=0.5)
    parser.add_argument("--efforts", type=int, nargs="+", default=[32, 128, 512])
    options = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    print("| items | search | CPU ms a query | recall@20 | build CPU s | repaid after |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for num_items in options.items:
        rng = np.random.default_rng(0)
        centres = rng.standard_normal((max(1, num_items // 100), DIM))
        items = embeddings(num_items, options.spread, rng, centres)
        queries = embeddings(options.queries, options.spread, rng, centres)
        began = time.process_time()
        best = exact(torch.from_numpy(items), torch.from_numpy(queries)).numpy()
        each = (time.process_time() - began) / len(queries)
        began = time.process_time()
        exact(torch.from_numpy(items), torch.from_numpy(queries[:ALONE]), at_once=1)
        alone = (time.process_time() - began) / ALONE
        print(f"| {num_items:,} | exact, one at a time | {1000 * alone:.2f} | 100% | | |")
        print(f"| {num_items:,} | exact | {1000 * each:.2f} | 100% | | |", flush=True)
        index = faiss.IndexHNSWFlat(DIM, LINKS, faiss.METRIC_INNER_PRODUCT)
        began = time.process_time()
        index.add(items)
        built = time.process_time() - began
        for effort in options.efforts:
            index.hnsw.efSearch = effort
            began = time.process_time()
            _, found = index.search(queries, TOP_K)
            took = (time.process_time() - began) / len(queries)
            pairs = zip(best, found, strict=True)
            recall = np.mean([len(np.intersect1d(*pair)) for pair in pairs]) / TOP_K
            after = f"{built / (each - took):,.0f}" if each > took else "never"
            print(
                f"| {num_items:,} | HNSW, efSearch {effort} | {1000 * took:.2f} | {recall:.1%} "
                f"| {built:.1f} | {after} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
