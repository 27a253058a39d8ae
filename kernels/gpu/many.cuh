// A launch over many arrays: every block has a chunk of one of them.
#pragma once

// The array that this block works on, by the first block of each; `starts` has one entry more than there are arrays.
__device__ inline int array_of_block(const int* starts, int count) {
    int low = 0, high = count;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (starts[middle] <= (int)blockIdx.x) low = middle;
        else high = middle;
    }
    return low;
}
