"""Names of the benchmarks, in the order of the help; each is a module of this package."""

BENCHMARKS = ("rewardbench", "rewardbench2", "mt_bench", "helpsteer2", "judgebench", "rm_bench", "llmbar")
