"""Studies: runs that train nothing, by the names that `config.method` takes (see `methods`)."""

STUDIES = {
    "selection_study": "paretohqd_jax.studies.selection",
    "structure_study": "paretohqd_jax.studies.structures",
}
