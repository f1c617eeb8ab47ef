// Resize and crop a frame with the integer weights of resampling.py: across and down, in either order, with 8 bits in between.
// The filter and the scale are in the tables of weights, which list the source values of each pixel.
//
// nvcc compiles two kernels. Another C++ compiler compiles two functions of the same names, which run the same blocks and threads
// one after the other, so that a machine without a GPU can test everything but the GPU itself.

#ifndef __CUDACC_RTC__  // NVRTC knows size_t, and has no headers
#include <stddef.h>
#endif

#ifdef __CUDACC__
#define PER_THREAD static __device__ __forceinline__
#else
#define PER_THREAD static inline
#endif
#define ONLY __restrict__

#define FRACTION_BITS 22
// 8 KiB of a block's shared memory: 32 pixels of a frame that shrinks up to 82 times. A segment that is longer is read in place.
#define SEGMENT_WORDS 2048

// A table's rows are `pixels` ints long: first source index, number of source values, then a row per weight.
PER_THREAD int first_of(const int* ONLY table, int pixel) { return table[pixel]; }

PER_THREAD int count_of(const int* ONLY table, int pixels, int pixel) { return table[pixels + pixel]; }

// The weighted sum of one pixel's values, `stride` bytes apart. Weights sum to 1 << FRACTION_BITS but for their rounding, and without
// their signs to less than twice that: the sum fits an int. It may leave 0..255 by rounding, and by a cubic's negative weights.
PER_THREAD unsigned char weigh(const unsigned char* values, size_t stride, const int* ONLY table, int pixels, int pixel)
{
    const int* weight = table + 2 * (size_t)pixels + pixel;
    const int count = count_of(table, pixels, pixel);
    int sum = 1 << (FRACTION_BITS - 1);
    for (int tap = 0; tap < count; ++tap) {
        sum += *values * *weight;
        values += stride;
        weight += pixels;
    }
    sum >>= FRACTION_BITS;
    return (unsigned char)(sum < 0 ? 0 : sum < 255 ? sum : 255);
}

// The words of a row that hold the values of the pixels of one block of `resize_rows`.
struct Segment {
    size_t from;
    size_t words;
};

PER_THREAD Segment segment_of(const int* ONLY table, int pixels, int threads, int tile)
{
    const int begin = tile * (threads / 3);
    const int end = begin + threads / 3 < pixels ? begin + threads / 3 : pixels;
    const size_t from = 3 * (size_t)first_of(table, begin) / 4;
    const size_t to = (3 * ((size_t)first_of(table, end - 1) + count_of(table, pixels, end - 1)) + 3) / 4;
    return {from, to - from};
}

// One thread's share of fetching the segment. Memory that the GPU shares with the CPU is slow to read byte by byte.
PER_THREAD void fetch(const unsigned* ONLY row, Segment segment, unsigned* ONLY kept, int threads, int thread)
{
    if (segment.words <= SEGMENT_WORDS)
        for (size_t word = thread; word < segment.words; word += threads)
            kept[word] = row[segment.from + word];
}

// One value of one row: BGR becomes RGB.
PER_THREAD void across(const unsigned* row, Segment segment, const unsigned* kept, const int* ONLY table, int pixels, int tile,
                       int threads, int thread, unsigned char* ONLY out)
{
    const int pixel = tile * (threads / 3) + thread / 3;
    if (pixel >= pixels)
        return;
    const int channel = thread % 3;
    const size_t from = 3 * (size_t)first_of(table, pixel) + (2 - channel);
    const unsigned char* values = segment.words <= SEGMENT_WORDS ? (const unsigned char*)kept + (from - 4 * segment.from)
                                                                  : (const unsigned char*)row + from;
    out[3 * (size_t)pixel + channel] = weigh(values, 3, table, pixels, pixel);
}

// One value of a resized column of `values`, whose rows are `width` bytes long.
PER_THREAD void down(const unsigned char* ONLY values, const int* ONLY table, int pixels, int pixel, int column, int width,
                     unsigned char* ONLY out)
{
    if (column >= width)
        return;
    const unsigned char* top = values + (size_t)first_of(table, pixel) * width + column;
    out[(size_t)pixel * width + column] = weigh(top, width, table, pixels, pixel);
}

// resize_rows: grid (rows, tiles), block (3 n): rows of `pitch` words, BGR → rows of `crop` pixels, RGB.
// resize_columns: grid (crop, tiles), block (n): rows of `width` bytes → `crop` such rows.
#ifdef __CUDACC__

extern "C" __global__ void resize_rows(const unsigned* ONLY frame, int pitch, const int* ONLY table, int crop,
                                       unsigned char* ONLY out)
{
    __shared__ unsigned kept[SEGMENT_WORDS];
    const unsigned* row = frame + (size_t)blockIdx.x * pitch;
    const Segment segment = segment_of(table, crop, blockDim.x, blockIdx.y);
    fetch(row, segment, kept, blockDim.x, threadIdx.x);
    __syncthreads();
    across(row, segment, kept, table, crop, blockIdx.y, blockDim.x, threadIdx.x, out + 3 * (size_t)crop * blockIdx.x);
}

extern "C" __global__ void resize_columns(const unsigned char* ONLY rows, int width, const int* ONLY table, int crop,
                                          unsigned char* ONLY out)
{
    down(rows, table, crop, blockIdx.x, blockIdx.y * blockDim.x + threadIdx.x, width, out);
}

#else

// The launch's grid and block come last.
extern "C" void resize_rows(const unsigned* frame, int pitch, const int* table, int crop, unsigned char* out, int grid_x,
                            int grid_y, int threads)
{
    unsigned kept[SEGMENT_WORDS];
    for (int tile = 0; tile < grid_y; ++tile) {
        const Segment segment = segment_of(table, crop, threads, tile);
        for (int y = 0; y < grid_x; ++y) {
            const unsigned* row = frame + (size_t)y * pitch;
            for (int thread = 0; thread < threads; ++thread)
                fetch(row, segment, kept, threads, thread);
            for (int thread = 0; thread < threads; ++thread)
                across(row, segment, kept, table, crop, tile, threads, thread, out + 3 * (size_t)crop * y);
        }
    }
}

extern "C" void resize_columns(const unsigned char* rows, int width, const int* table, int crop, unsigned char* out, int grid_x,
                               int grid_y, int threads)
{
    for (int pixel = 0; pixel < grid_x; ++pixel)
        for (int column = 0; column < grid_y * threads; ++column)
            down(rows, table, crop, pixel, column, width, out);
}

#endif
