/* Names the functions that a command executes, by stepping through it one instruction at a time.
 *
 * usage: steps SYMBOLS OUT CMD [ARG..]
 *
 * SYMBOLS is the output of `nm -n` for CMD, a program that is not position independent. Appends to OUT a line
 * `ROLE NAME` for each function, in the order in which they are first executed: `init` in every process that comes of CMD, until it executes another program,
 * `parent` in CMD itself, and `wait` there once it has called the function that gives the code of a start back. Used by
 * hack/layout.sh.
 *
 * Exit status: that of CMD, 125 when it cannot be traced. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PARENT, INIT, WAIT, ROLES };
static const char *const role_name[ROLES] = {"parent", "init", "wait"};
/* Part of the name of that function. */
static const char given_back[] = "unmap_start";

struct symbol {
    unsigned long address;
    char *name;
    /* When it was first executed, from 1; 0 is never. */
    unsigned used[ROLES];
    int gives_back;
};
static struct symbol *symbols;
static size_t count;
static unsigned executed;

static void die(const char *what)
{
    perror(what);
    exit(125);
}

static void read_symbols(const char *path)
{
    FILE *in = fopen(path, "r");
    if (!in)
        die(path);
    char *line = NULL;
    size_t room = 0, have = 0;
    while (getline(&line, &room, in) > 0) {
        char kind, name[4096];
        unsigned long address;
        if (sscanf(line, "%lx %c %4095s", &address, &kind, name) != 3 || !strchr("tTwW", kind))
            continue;
        if (count == have && !(symbols = realloc(symbols, (have = have * 2 + 1024) * sizeof *symbols)))
            die("realloc");
        symbols[count++] =
            (struct symbol){.address = address, .name = strdup(name), .gives_back = strstr(name, given_back) != NULL};
    }
    free(line);
    fclose(in);
}

/* The last symbol at or below the address; several may share it. True: it gives code back. */
static int mark(unsigned long address, int role)
{
    int gives_back = 0;
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (symbols[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0 || address > symbols[count - 1].address + 65536)
        return 0;
    for (size_t at = low; at-- > 0 && symbols[at].address == symbols[low - 1].address;) {
        gives_back |= symbols[at].gives_back;
        if (!symbols[at].used[role])
            symbols[at].used[role] = ++executed;
    }
    return gives_back;
}

static int role_of_order;

static int by_time(const void *a, const void *b)
{
    unsigned x = ((const struct symbol *)a)->used[role_of_order], y = ((const struct symbol *)b)->used[role_of_order];
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: steps SYMBOLS OUT CMD [ARG..]\n");
        return 125;
    }
    read_symbols(argv[1]);
    FILE *out = fopen(argv[2], "a");
    if (!out)
        die(argv[2]);
    pid_t command = fork();
    if (command == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execv(argv[3], argv + 3);
        _exit(125);
    }
    pid_t left[64];
    size_t lefts = 0;
    int status, result = 125, own = PARENT;
    if (command < 0 || waitpid(command, &status, 0) != command || !WIFSTOPPED(status))
        die(argv[3]);
    long options = PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEEXEC;
    if (ptrace(PTRACE_SETOPTIONS, command, 0, options) != 0)
        die("ptrace");
    ptrace(PTRACE_SINGLESTEP, command, 0, 0);
    for (;;) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0)
            break;
        if (!WIFSTOPPED(status)) {
            if (pid == command) {
                result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
                break;
            }
            continue;
        }
        int event = status >> 16, signal = WSTOPSIG(status);
        if (event == PTRACE_EVENT_EXEC && pid != command) {
            ptrace(PTRACE_DETACH, pid, 0, 0);
            for (size_t at = 0; at < lefts; at++)
                if (left[at] == pid)
                    left[at] = left[--lefts];
            continue;
        }
        if (event == PTRACE_EVENT_CLONE || event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK) {
            unsigned long born;
            if (ptrace(PTRACE_GETEVENTMSG, pid, 0, &born) == 0 && lefts < sizeof left / sizeof *left)
                left[lefts++] = (pid_t)born;
        }
        struct user_regs_struct registers;
        if (ptrace(PTRACE_GETREGS, pid, 0, &registers) == 0)
            if (mark(registers.rip, pid == command ? own : INIT) && pid == command)
                own = WAIT;
        int deliver = event || signal == SIGTRAP || signal == SIGSTOP ? 0 : signal;
        ptrace(PTRACE_SINGLESTEP, pid, 0, deliver);
    }
    /* What `create` leaves waiting must not be in the middle of a step when its tracer is gone. */
    for (size_t at = 0; at < lefts; at++)
        if (kill(left[at], SIGSTOP) == 0 && waitpid(left[at], &status, __WALL) == left[at] && WIFSTOPPED(status)) {
            ptrace(PTRACE_DETACH, left[at], 0, 0);
            kill(left[at], SIGCONT);
        }
    for (int role = 0; role < ROLES; role++) {
        role_of_order = role;
        qsort(symbols, count, sizeof *symbols, by_time);
        for (size_t at = 0; at < count; at++)
            if (symbols[at].used[role])
                fprintf(out, "%s %s\n", role_name[role], symbols[at].name);
    }
    return fclose(out) == 0 ? result : 125;
}
