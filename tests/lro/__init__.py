"""The stock clients of google.longrunning, and the conformance kit for its servers."""
