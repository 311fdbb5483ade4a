"""Restore families from disk and evaluate their domains.

python eval.py --workdir runs/parallel
python eval.py --workdir runs/parallel --domains cifar100 --split val --crops 10

Runs on the Visual Decathlon also get the paper's table 1; several runs share one:

python eval.py --workdir runs/decathlon/parallel,runs/decathlon/linear --format latex
python eval.py --workdir runs/decathlon/parallel --submission results.json
python eval.py --workdir runs/decathlon/parallel --split test --labels decathlon_labels_test.zip
"""

from radapt_jax import startup
from radapt_jax.commands import evaluate

if __name__ == "__main__":
    startup.run(evaluate.main)
