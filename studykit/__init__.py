"""studykit: does knowledge distillation beat fine-tuning for my student, teacher, data and budget?

Nothing heavy is imported here, so that the command line and the dashboard start at once:

    from studykit import study          # run and compare (imports torch)
    from studykit import results        # read what was measured (does not)
"""

__version__ = "0.1.0"
