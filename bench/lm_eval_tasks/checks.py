"""IFEval's own checks under a name that a task file beside them can use."""

from lm_eval.tasks.ifeval.utils import agg_inst_level_acc as agg_inst_level_acc
from lm_eval.tasks.ifeval.utils import process_results as process_results
