// Products of matrices, op(a) op(b) + c, one for each task.
#pragma once
#include "products.cuh"

// A_TURNED: a lies as [steps, rows]; B_TURNED: b lies as [columns, steps]. See conv.cuh for the rest.
template <class E, int V, bool A_TURNED, bool B_TURNED, class T = typename E::T>
__global__ void __launch_bounds__(E::THREADS, E::BLOCKS)
linear(const T* a, const T* b, const T* c, T* y, int a_step, int b_step, int c_step, int c_row, int each, int parts, int rows,
       int columns, int steps) {
    const Place at = Place::of<E>(columns);
    const Matrix<T, !A_TURNED> left = {a + (long long)at.task * a_step, rows, steps, A_TURNED ? rows : steps};
    const Matrix<T, B_TURNED> right = {b + (long long)at.task * b_step, columns, steps, B_TURNED ? steps : columns};
    multiply<E, V>(left, right, c ? c + (long long)at.task * c_step : c, c_row,
                   y + ((long long)at.task * parts + at.part) * rows * columns,
                   InOrder{rows}, columns, at.row, at.column, at.part * each, min(steps, (at.part + 1) * each));
}
