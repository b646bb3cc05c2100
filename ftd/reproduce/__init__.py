"""Evidence: run the published task sets through the workflow; write its results into docs/.

These modules stand above the workflow: they start ``snakemake`` as a user would.
"""
