"""The expression language of workflow files: parse and evaluate `${{ }}`."""
