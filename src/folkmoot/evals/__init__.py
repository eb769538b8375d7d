"""Measures what a moot's answers are worth: tasks with checkable answers, every call kept, one record a job."""
