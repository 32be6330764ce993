// Loaded beside libfaketime and made ready first of all libraries (-z initfirst). When libfaketime is
// made ready, it frees memory of the loader's, through an allocator that takes malloc's place in the
// program and was not called before: mimalloc then looks for a page in a map that it has not made yet.
#include <stdlib.h>

__attribute__((constructor)) static void call_the_allocator(void) { free(malloc(1)); }
