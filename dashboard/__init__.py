"""Browse results: `streamlit run dashboard/app.py`. Reads through `studykit.results`, never imports torch."""
