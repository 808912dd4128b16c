"""What the tests on throwaway hosts share: machines, runs of site.yml, people with a browser's cookies, kernels."""
