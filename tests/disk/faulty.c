// A disk that fails and forgets, for the files of one process below one directory, by LD_PRELOAD.
//
// FAULTY_DIR    the files that are meant: this begins their paths
// FAULTY_ERRNO  a file with two numbers, the errno of writes and that of syncs; 0, or no such file,
//               is a disk that works. A write that fails has written its first half.
// FAULTY_UNDO   a directory: what a write has replaced is kept there until its file is synced, in
//               a file named by the inode
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum operation { WRITE, SYNC };

// Comes before the bytes that a write has replaced.
struct undo {
    uint64_t offset, length, file_length;
};

static int is_meant(int fd) {
    const char *dir = getenv("FAULTY_DIR");
    char name[32], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (dir == NULL || length < 0) return 0;
    path[length] = 0;
    return strncmp(path, dir, strlen(dir)) == 0;
}

static int error_of(enum operation operation) {
    int errors[2] = {0, 0};
    char text[32] = {0};
    int fd = open(getenv("FAULTY_ERRNO"), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    if (read(fd, text, sizeof text - 1) > 0) sscanf(text, "%d %d", &errors[WRITE], &errors[SYNC]);
    close(fd);
    return errors[operation];
}

static int undo_path(int fd, char *path, size_t size, struct stat *file) {
    if (fstat(fd, file) != 0 || !S_ISREG(file->st_mode)) return 0;
    snprintf(path, size, "%s/%lu", getenv("FAULTY_UNDO"), (unsigned long)file->st_ino);
    return 1;
}

static void keep(int fd, size_t length, off_t offset) {
    char path[4096];
    struct stat file;
    if (!undo_path(fd, path, sizeof path, &file)) return;
    char *kept = malloc(sizeof(struct undo) + length);
    ssize_t read = syscall(SYS_pread64, fd, kept + sizeof(struct undo), length, offset);
    struct undo undo = {offset, read < 0 ? 0 : read, file.st_size};
    memcpy(kept, &undo, sizeof undo);
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    size_t whole = sizeof undo + undo.length;
    // A test that cannot undo would prove nothing.
    if (log < 0 || syscall(SYS_write, log, kept, whole) != (long)whole) abort();
    close(log);
    free(kept);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    if (is_meant(fd)) {
        int error = error_of(WRITE);
        keep(fd, length, offset);
        if (error != 0) {
            syscall(SYS_pwrite64, fd, data, length / 2, offset);
            errno = error;
            return -1;
        }
    }
    return syscall(SYS_pwrite64, fd, data, length, offset);
}

ssize_t write(int fd, const void *data, size_t length) {
    if (is_meant(fd)) {
        int error = error_of(WRITE);
        keep(fd, length, lseek(fd, 0, SEEK_CUR));
        if (error != 0) {
            errno = error;
            return -1;
        }
    }
    return syscall(SYS_write, fd, data, length);
}

static int sync_by(long call, int fd) {
    int is_ours = is_meant(fd);
    int error = is_ours ? error_of(SYNC) : 0;
    if (error != 0) {
        errno = error;
        return -1;
    }
    int result = syscall(call, fd);
    char path[4096];
    struct stat file;
    if (is_ours && result == 0 && undo_path(fd, path, sizeof path, &file)) unlink(path);
    return result;
}

int fsync(int fd) { return sync_by(SYS_fsync, fd); }

int fdatasync(int fd) { return sync_by(SYS_fdatasync, fd); }
