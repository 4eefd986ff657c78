# Turns the results of hack/bench.sh into docs/bench.md (-v form=md) or docs/bench.svg (-v form=svg).
# Input, tab separated:
#   fact VIEW KEY VALUE
#   time VIEW MEASURE GAP ROW STEP RUNS FAILED MIN MEDIAN P95 CPU RSS XMIN XMEDIAN WHY     (pairbench -t)
#   own  VIEW RUNTIME COMMAND ROLE PROCESSES CALLS KIB                                     (tally)
BEGIN {
    FS = "\t"
    nm = split("run-spec run-docker run-spec-fixed run-docker-fixed life exec exec-docker state kill delete-force pause resume update events many", measure, " ")
    title["run-spec"] = "run, runc's default spec";      step_of["run-spec"] = "run"
    title["run-docker"] = "run, Docker's config";        step_of["run-docker"] = "run"
    title["run-spec-fixed"] = "run, default spec, kept order";  step_of["run-spec-fixed"] = "run"
    title["run-docker-fixed"] = "run, Docker's config, kept order"; step_of["run-docker-fixed"] = "run"
    title["life"] = "create + start + kill + delete";    step_of["life"] = "total"
    title["exec"] = "exec, default spec";                step_of["exec"] = "exec"
    title["exec-docker"] = "exec, Docker's config";      step_of["exec-docker"] = "exec"
    title["state"] = "state";                            step_of["state"] = "state"
    title["kill"] = "kill ID 0";                         step_of["kill"] = "kill"
    title["delete-force"] = "delete -f of a running container"; step_of["delete-force"] = "delete"
    title["pause"] = "pause";                            step_of["pause"] = "pause"
    title["resume"] = "resume";                          step_of["resume"] = "resume"
    title["update"] = "update";                          step_of["update"] = "update"
    title["events"] = "events --stats";                  step_of["events"] = "events"
    title["many"] = "run, 50 at once, default spec";     step_of["many"] = "run"
    nr = split("naru floor crun runc youki", rt, " ")
    gaps[1] = 0; gaps[2] = 100
}
$1 == "fact" { if ($3 == "version") versions[$2] = versions[$2] (versions[$2] == "" ? "" : ", ") $4; else fact[$2, $3] = $4; next }
$1 == "own" { calls[$2, $3, $4, $5] = $7; kib[$2, $3, $4, $5] = $8; owns[$2, $3] = 1; next }
$1 == "time" {
    seen[$2, $3] = 1; has[$2] = 1
    if ($7 == 0) { why[$2, $3, $5] = $16 == "" ? "failed" : $16; next }
    k = $2 SUBSEP $3 SUBSEP $4 SUBSEP $5 SUBSEP $6
    runs[k] = $7; failed[k] = $8; min[k] = $9; med[k] = $10; p95[k] = $11; cpu[k] = $12
}
function key(v, m, g, r, s) { return v SUBSEP m SUBSEP g SUBSEP r SUBSEP s }
function good(k) { return (k in runs) && min[k] > 0 && failed[k] == 0 }
function ms(x) { return x < 0 ? "-" : x < 10 ? sprintf("%.2f", x) : x < 100 ? sprintf("%.1f", x) : sprintf("%.0f", x) }
function ratio(a, b) { return b > 0 && a > 0 ? sprintf("%.2f", a / b) : "-" }
function base_of(v, m,   s) {
    s = step_of[m]
    return (key(v, m, 0, "floor", s) in runs) ? "floor" : (key(v, m, 0, "crun", s) in runs) ? "crun" : "runc"
}

function measured(v, r,   i) {
    for (i = 1; i <= nm; i++) if (key(v, measure[i], 0, r, step_of[measure[i]]) in runs) return 1
    return 0
}
function summary(v,   i, j, g, m, s, k, o, line) {
    if (!measured(v, "naru")) return
    printf "| cgroup %s | idle before | naru |", v
    for (j = 2; j <= nr; j++) if (measured(v, rt[j])) printf " of %s |", rt[j]
    printf "\n|---|---|---|"
    for (j = 2; j <= nr; j++) if (measured(v, rt[j])) printf "---|"
    print ""
    for (i = 1; i <= nm; i++) for (g = 1; g <= 2; g++) {
        m = measure[i]; s = step_of[m]; k = key(v, m, gaps[g], "naru", s)
        if (!(k in runs)) continue
        line = sprintf("| %s | %s | %s / %s%s |", title[m], gaps[g] ? gaps[g] " ms" : "none", ms(min[k]), ms(med[k]), failed[k] ? " (" failed[k] " failed)" : "")
        for (j = 2; j <= nr; j++) if (measured(v, rt[j])) {
            o = key(v, m, gaps[g], rt[j], s)
            line = line (good(o) && good(k) ? sprintf(" %s, %s |", ratio(min[k], min[o]), ratio(med[k], med[o])) : " - |")
        }
        print line
    }
    print ""
}
function detail(v, m,   g, j, k, b, s, base) {
    if (!((v, m) in seen)) return
    s = step_of[m]; base = base_of(v, m)
    printf "### %s, cgroup %s\n\n", title[m], v
    printf "| | idle before | min | median | p95 | cpu | x %s, min | x %s, median | failed runs |\n|---|---|---|---|---|---|---|---|---|\n", base, base
    for (g = 1; g <= 2; g++) for (j = 1; j <= nr; j++) {
        k = key(v, m, gaps[g], rt[j], s); b = key(v, m, gaps[g], base, s)
        if (!(k in runs)) continue
        printf "| %s | %s | %s | %s | %s | %s | %s | %s | %d of %d |\n", rt[j], gaps[g] ? gaps[g] " ms" : "none", ms(min[k]), ms(med[k]), ms(p95[k]), ms(cpu[k]), good(k) && good(b) ? ratio(min[k], min[b]) : "-", good(k) && good(b) ? ratio(med[k], med[b]) : "-", failed[k], runs[k]
    }
    print ""
    for (j = 1; j <= nr; j++) if ((v, m, rt[j]) in why) printf "%s is left out, it failed: `%s`\n\n", rt[j], why[v, m, rt[j]]
    if (m != "life") return
    n = split("create start kill gone delete", st, " ")
    print "Each apart, min / median; `gone` is the wait from the return of `kill` until init is reaped.\n"
    print "| | idle before | create | start | kill | gone | delete |\n|---|---|---|---|---|---|---|"
    for (g = 1; g <= 2; g++) for (j = 1; j <= nr; j++) {
        if (!(key(v, m, gaps[g], rt[j], "total") in runs)) continue
        printf "| %s | %s |", rt[j], gaps[g] ? gaps[g] " ms" : "none"
        for (i = 1; i <= n; i++) { k = key(v, m, gaps[g], rt[j], st[i]); printf " %s / %s |", ms(min[k]), ms(med[k]) }
        print ""
    }
    print ""
}
function own(v,   c, j, n, cmd, r, any) {
    for (j = 1; j <= nr; j++) if ((v, rt[j]) in owns) any = 1
    if (!any) return
    printf "### Own memory and system calls, cgroup %s\n\n", v
    print "Peak RSS in KiB and the number of system calls of the runtime's own processes, without the payload: of the command itself, and (after +) of the process that becomes the container's until it executes the payload.\n"
    n = split("run create start exec state kill delete", cmd, " ")
    printf "| |"
    for (c = 1; c <= n; c++) printf " %s |", cmd[c]
    printf "\n|---|"
    for (c = 1; c <= n; c++) printf "---|"
    print ""
    for (j = 1; j <= nr; j++) if ((v, rt[j]) in owns) {
        r = rt[j]
        printf "| %s, KiB |", r
        for (c = 1; c <= n; c++) printf " %s |", (v, r, cmd[c], "parent") in kib ? kib[v, r, cmd[c], "parent"] (calls[v, r, cmd[c], "init"] > 9 ? " + " kib[v, r, cmd[c], "init"] : "") : "-"
        printf "\n| %s, calls |", r
        for (c = 1; c <= n; c++) printf " %s |", (v, r, cmd[c], "parent") in calls ? calls[v, r, cmd[c], "parent"] (calls[v, r, cmd[c], "init"] > 9 ? " + " calls[v, r, cmd[c], "init"] : "") : "-"
        print ""
    }
    print ""
}
function markdown(   i, v, m, first) {
    print "# Benchmark\n"
    print "Written by `make bench` (`hack/bench.sh`), which says how to choose runtimes, rounds and measures; do not edit. `floor` is"
    print "[benches/floor.c](../benches/floor.c), the kernel's own price of one default container: its system calls without JSON, state, hooks,"
    print "checks, seccomp or device rules. Times are the wall time of the whole process, in ms; cpu is user + system of it and all it waited for.\n"
    print "![wall time of naru, the floor and the other runtimes](bench.svg)\n"
    first = ("v2" in has) ? "v2" : "v1"
    print "## Summary\n"
    print "Wall time of the whole command, min / median in ms, and naru's share of each other's time (min, median): below 1 naru is faster.\n"
    for (i = 2; i >= 1; i--) if (("v" i) in has) summary("v" i)
    print "## How it was measured\n"
    for (i = 2; i >= 1; i--) {
        v = "v" i
        if (!(v in has)) continue
        printf "- cgroup %s: %s, %s, %s; payload %s; %s%s.\n", v, fact[v, "cpu"], fact[v, "kernel"], fact[v, "scheduler"], fact[v, "payload"], fact[v, "rounds"], (v, "left") in fact ? "; afterwards " fact[v, "left"] : "; **what was left behind was not checked**"
        printf "  %s.\n", versions[v]
    }
    print "- All commands of a measure run in one round-robin, shuffled in each round, after two rounds that are not counted: a drifting machine"
    print "  hits all alike. Quote ratios from one table, not times: other machines and kernels differ."
    print "- In kept order each follows the same one in every round: floor, naru, then the others. Who comes after a large program finds the"
    print "  caches cold, which is the floor there; shuffled, it is anybody."
    print "- Idling before each command shows the waits for RCU grace periods (moving a process between cgroups, mounting cgroup2) that tight loops hide."
    print "- cgroup v2 is a fresh mount in a private mount namespace; v1 is never measured under SCHED_FIFO, since a FIFO task cannot enter a v1 cpu"
    print "  cgroup, and is noisier. On v1 floor makes no cgroup at all. Docker's config is the recorded one in `runtime-tools-tests/configs`, its"
    print "  args replaced; on v2 with a cgroup namespace, as Docker writes there."
    print "- 50 at once is the time until the last of 50 has ended. Ratios are left out where runs failed.\n"
    for (j = 2; j >= 1; j--) {
        v = "v" j
        if (!(v in has)) continue
        printf "## cgroup %s\n\n", v
        for (i = 1; i <= nm; i++) detail(v, measure[i])
        own(v)
    }
}
# One panel per measure (rows) and idle time (columns), each with its own scale: bars are medians, the notch is the minimum.
function panel(v, m, g, x, y, w,   j, k, s, top, len, r, lab) {
    s = step_of[m]
    for (j = 1; j <= nr; j++) { k = key(v, m, g, rt[j], s); if (good(k) && med[k] > top) top = med[k] }
    if (!top) return 0
    printf "<text class=\"h\" x=\"%d\" y=\"%d\">%s</text>\n", x, y, title[m]
    y += 8
    for (j = 1; j <= nr; j++) {
        r = rt[j]; k = key(v, m, g, r, s)
        if (!good(k)) continue
        len = (w - 120) * med[k] / top
        if (len < 1) len = 1
        lab = ms(med[k])
        printf "<text class=\"n\" x=\"%d\" y=\"%d\">%s</text><rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"11\" rx=\"2\"/>", x + 44, y + 10, r, r == "naru" ? "naru" : r == "floor" ? "floor" : "peer", x + 50, y, len
        printf "<path class=\"m\" d=\"M%.1f %dv11\"/><text class=\"v\" x=\"%.1f\" y=\"%d\">%s</text>\n", x + 50 + (w - 120) * min[k] / top, y, x + 55 + len, y + 10, lab
        y += 15
    }
    return y + 22
}
function svg(   v, i, g, y, y2, end, body, x) {
    v = ("v2" in has) ? "v2" : "v1"
    # The height must be written first: count the rows.
    y = 84
    for (i = 1; i <= nm; i++) {
        end = 0
        for (g = 1; g <= 2; g++) { y2 = 0; for (j = 1; j <= nr; j++) y2 += good(key(v, measure[i], gaps[g], rt[j], step_of[measure[i]])); if (y2 > end) end = y2 }
        if (end) y += 30 + 15 * end
    }
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 %d\" width=\"860\" height=\"%d\" role=\"img\" aria-label=\"Wall time of container commands, median per runtime\">\n", y, y
    print "<style>"
    print "text{font:11px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#3d4450}"
    print ".t{font-size:15px;font-weight:600;fill:#15181d}.h{font-weight:600;fill:#15181d}.n{text-anchor:end}.v{font-variant-numeric:tabular-nums}"
    print ".bg{fill:#fff}.naru{fill:#0b6bcb}.floor{fill:#c9ced6}.peer{fill:#8e97a5}.m{stroke:#fff;stroke-width:1.5}"
    print "@media (prefers-color-scheme:dark){text{fill:#b4bcc8}.t,.h{fill:#eef1f5}.bg{fill:#0f1318}.naru{fill:#4ea3ff}.floor{fill:#3a424d}.peer{fill:#687382}.m{stroke:#0f1318}}"
    print "</style>"
    printf "<rect class=\"bg\" width=\"860\" height=\"%d\" rx=\"6\"/>\n", y
    printf "<text class=\"t\" x=\"20\" y=\"28\">Wall time of the whole command, median in ms (cgroup %s; shorter is better)</text>\n", v
    print "<text x=\"20\" y=\"46\">floor: the kernel's own price of one default container. The notch in a bar is the minimum. Each panel has its own scale.</text>"
    print "<text class=\"h\" x=\"20\" y=\"68\">back to back</text><text class=\"h\" x=\"440\" y=\"68\">after idling 100 ms</text>"
    y = 92
    for (i = 1; i <= nm; i++) {
        end = 0
        for (g = 1; g <= 2; g++) { y2 = panel(v, measure[i], gaps[g], g == 1 ? 20 : 440, y, 400); if (y2 > end) end = y2 }
        if (end) y = end
    }
    print "</svg>"
}
END { if (form == "svg") svg(); else markdown() }
