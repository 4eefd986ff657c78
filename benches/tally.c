/* Counts the system calls and the peak memory that a container runtime itself
 * needs, apart from the payload's.
 *
 * usage: tally [-v] [-o FILE] [-p PAYLOAD] CMD [ARG..]
 *
 * Runs CMD under ptrace, follows every process that comes of it, and prints one
 * line per role:   role  processes  system-calls  peak-RSS-KiB
 *   parent   CMD itself from its execve on, with all its threads
 *   init     every other process, until it executes PAYLOAD (argv[0] is PAYLOAD),
 *            where it is let go; without -p it is counted to its end
 * -v adds one line per role and system call: role  name  count
 *
 * When CMD has ended and the rest has been quiet for 100 ms (`create` leaves its
 * init waiting for `start`), the rest is let go and the count is complete.
 * Peak RSS is VmHWM, read where a process ends or executes another program:
 * wait4's ru_maxrss would take in the payload. Processes of one role: the largest.
 *
 * Exit status: that of CMD (128+N for a signal), 125 when it cannot be traced. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <linux/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif
#define NCALLS 1024
#define NTASKS 4096

static const char *const name_of[NCALLS] = {
#include "syscall-names.h" /* [NUMBER] = "name", made from <sys/syscall.h> when this is compiled */
};
enum role { PARENT, INIT, ROLES };
static const char *const role_name[ROLES] = {"parent", "init"};
static long calls[ROLES][NCALLS], peak[ROLES], procs[ROLES];
static struct task { pid_t tid, tgid; enum role role; int payload; } task[NTASKS];
static pid_t first;
static const char *payload;

/* A number from /proc/TID/status, such as VmHWM (KiB) or Tgid; -1 when it is not there. */
static long status_of(pid_t tid, const char *key) {
  char path[64], b[4096];
  snprintf(path, sizeof path, "/proc/%d/status", tid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t n = read(fd, b, sizeof b - 1);
  close(fd);
  if (n <= 0) return -1;
  b[n] = 0;
  char *p = strstr(b, key);
  return p ? atol(p + strlen(key)) : -1;
}
static struct task *task_of(pid_t tid) {
  struct task *gap = 0;
  for (int i = 0; i < NTASKS; i++) {
    if (task[i].tid == tid) return &task[i];
    if (!task[i].tid && !gap) gap = &task[i];
  }
  if (!gap) { fprintf(stderr, "tally: too many tasks\n"); _exit(125); }
  long g = status_of(tid, "\nTgid:");
  *gap = (struct task){tid, g > 0 ? g : tid, 0, 0};
  gap->role = gap->tgid == first ? PARENT : INIT;
  if (gap->tgid == tid) procs[gap->role]++;
  return gap;
}
static void note_peak(struct task *t) {
  long k = status_of(t->tid, "\nVmHWM:");
  if (k > peak[t->role]) peak[t->role] = k;
}
/* Does this execve, about to happen, name the payload as argv[0]? */
static int names_payload(pid_t tid, uint64_t argv) {
  uint64_t at = 0; char b[256] = "";
  struct iovec to = {&at, sizeof at}, from = {(void *)(uintptr_t)argv, sizeof at};
  if (!payload || !argv || process_vm_readv(tid, &to, 1, &from, 1, 0) != sizeof at || !at) return 0;
  /* Only up to the end of its page: the next one need not be mapped. */
  size_t n = 4096 - at % 4096;
  if (n > sizeof b - 1) n = sizeof b - 1;
  to = (struct iovec){b, n}; from = (struct iovec){(void *)(uintptr_t)at, n};
  ssize_t got = process_vm_readv(tid, &to, 1, &from, 1, 0);
  if (got == (ssize_t)n && n < sizeof b - 1 && !memchr(b, 0, n)) {
    to = (struct iovec){b + n, sizeof b - 1 - n}; from = (struct iovec){(void *)(uintptr_t)(at + n), sizeof b - 1 - n};
    process_vm_readv(tid, &to, 1, &from, 1, 0);
  }
  return !strcmp(b, payload);
}
static void on_syscall(struct task *t) {
  struct ptrace_syscall_info si;
  if (ptrace(PTRACE_GET_SYSCALL_INFO, t->tid, sizeof si, &si) <= 0 || si.op != PTRACE_SYSCALL_INFO_ENTRY) return;
  uint64_t nr = si.entry.nr;
  calls[t->role][nr < NCALLS ? nr : NCALLS - 1]++;
  if (nr == SYS_execve || nr == SYS_execveat) {
    note_peak(t);
    t->payload = names_payload(t->tid, si.entry.args[nr == SYS_execve ? 1 : 2]);
  }
}
int main(int c, char **v) {
  int verbose = 0, o, go[2], st, code = 125, over = 0, quiet = 0;
  FILE *out = stdout;
  while ((o = getopt(c, v, "+vo:p:")) != -1)
    if (o == 'v') verbose = 1;
    else if (o == 'p') payload = optarg;
    else if (o != 'o') return 125;
    else if (!(out = fopen(optarg, "we"))) { perror(optarg); return 125; }
  if (optind == c) { fprintf(stderr, "usage: tally [-v] [-o FILE] [-p PAYLOAD] CMD [ARG..]\n"); return 125; }
  if (pipe2(go, O_CLOEXEC) || (first = fork()) < 0) { perror("tally"); return 125; }
  if (!first) {
    char b;
    if (read(go[0], &b, 1) != 1) _exit(125);
    execvp(v[optind], v + optind);
    perror(v[optind]);
    _exit(127);
  }
  long opts = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT;
  if (ptrace(PTRACE_SEIZE, first, 0, opts)) { perror("tally: ptrace"); kill(first, SIGKILL); return 125; }
  task_of(first);
  /* It stops at its execve, from where every system call is watched. */
  if (write(go[1], "", 1) != 1) return 125;
  while (quiet < 100) {
    pid_t p = waitpid(-1, &st, __WALL | (over ? WNOHANG : 0));
    if (p < 0) { if (errno == EINTR) continue; break; }
    if (!p) { usleep(1000); quiet++; continue; }
    quiet = 0;
    if (!WIFSTOPPED(st)) {
      for (int i = 0; i < NTASKS; i++) if (task[i].tid == p) task[i].tid = 0;
      if (p == first) over = 1, code = WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
      continue;
    }
    struct task *t = task_of(p);
    int sig = WSTOPSIG(st), event = st >> 16;
    long how = PTRACE_SYSCALL, with = 0;
    if (sig == (SIGTRAP | 0x80)) on_syscall(t);
    else if (event == PTRACE_EVENT_EXIT) note_peak(t);
    else if (event == PTRACE_EVENT_EXEC) {
      unsigned long was = 0;
      ptrace(PTRACE_GETEVENTMSG, p, 0, &was);
      struct task *who = was && (pid_t)was != p ? task_of(was) : t;
      int is = who->payload;
      for (int i = 0; i < NTASKS; i++) if (task[i].tgid == t->tgid && &task[i] != t) task[i].tid = 0;
      t->payload = 0;
      if (is && t->role == INIT) { t->tid = 0; how = PTRACE_DETACH; }
    } else if (event == PTRACE_EVENT_STOP) {
      if (sig != SIGTRAP) how = PTRACE_LISTEN; /* a group stop; SIGTRAP: a new task */
    } else if (!event) with = sig;
    ptrace(how, p, 0, with); /* ESRCH: killed meanwhile */
  }
  for (int i = 0; i < NTASKS; i++) if (task[i].tid) note_peak(&task[i]);
  for (int r = 0; r < ROLES; r++) {
    long sum = 0;
    for (int i = 0; i < NCALLS; i++) sum += calls[r][i];
    fprintf(out, "%s\t%ld\t%ld\t%ld\n", role_name[r], procs[r], sum, peak[r]);
    for (int i = 0; verbose && i < NCALLS; i++)
      if (calls[r][i]) fprintf(out, "%s\t%s\t%ld\n", role_name[r], name_of[i] ? name_of[i] : "?", calls[r][i]);
  }
  if (fclose(out)) { perror("tally"); return 125; }
  return code; /* what is still traced is detached by the kernel and goes on */
}
