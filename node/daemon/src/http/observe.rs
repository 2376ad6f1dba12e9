//! Numbers about this node in AIStore's shapes.

use serde_json::{Map, Value, json};

/// A file of `/proc`; empty where there is none.
fn proc(name: &str) -> String {
    std::fs::read_to_string(format!("/proc/{name}")).unwrap_or_default()
}

/// Bytes of a line `Name:  123 kB` of `/proc/meminfo`.
fn bytes_of(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn load(loadavg: &str, nth: usize) -> f64 {
    loadavg.split_whitespace().nth(nth).and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// Memory and load of the machine. Since there is no second look, what share of the processors is in use is left to
/// the load.
pub(super) fn sysinfo() -> Value {
    let (memory, average) = (proc("meminfo"), proc("loadavg"));
    let (total, free) = (bytes_of(&memory, "MemTotal"), bytes_of(&memory, "MemAvailable"));
    let used = total.saturating_sub(free);
    let own = bytes_of(&proc("self/status"), "VmRSS");
    let percent = |part: u64| part.saturating_mul(100).checked_div(total).unwrap_or(0);
    json!({
        "mem_used": own.to_string(),
        "mem_avail": free.to_string(),
        "pct_mem_used": percent(used),
        "load_avg": {"one": load(&average, 0), "five": load(&average, 1), "fifteen": load(&average, 2)},
    })
}

/// `name value` lines of OpenMetrics text, comments left out.
fn samples(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '))
}

/// Values by name; buckets of histograms are left out.
pub(super) fn tracker(metrics: &str) -> Value {
    let whole = samples(metrics).filter(|(name, _)| !name.contains("_bucket{"));
    let values: Map<String, Value> = whole.map(|(name, value)| (name.to_owned(), json!({"v": value}))).collect();
    Value::Object(values)
}

/// Which metrics there are, and of what kind.
pub(super) fn metric_kinds(metrics: &str) -> Value {
    let typed = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let kinds: Map<String, Value> = typed.map(|(name, kind)| (name.to_owned(), json!(kind))).collect();
    Value::Object(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_from_their_own_text() {
        let text = "# HELP a_x X.\n# TYPE a_x counter\na_x_total 7\na_y_bucket{le=\"1\"} 3\na_y_sum 0.5\nl{a=\"b c\"} 1\n# EOF\n";
        assert_eq!(
            tracker(text),
            json!({"a_x_total": {"v": "7"}, "a_y_sum": {"v": "0.5"}, "l{a=\"b c\"}": {"v": "1"}})
        );
        assert_eq!(metric_kinds(text), json!({"a_x": "counter"}));
    }

    #[test]
    fn proc_is_read_and_missing_lines_count_as_nothing() {
        let text = "MemTotal:       100 kB\nMemAvailable:   25 kB\n";
        assert_eq!((bytes_of(text, "MemTotal"), bytes_of(text, "Mem"), bytes_of("", "MemTotal")), (102_400, 0, 0));
        assert_eq!(load("0.50 1.25 2.00 1/100 7", 1).to_bits(), 1.25f64.to_bits());
        assert!(sysinfo()["mem_avail"].is_string());
    }
}
