//! `strftime_now`: the date for templates that tell the model what day it is. Always UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Failure;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Formats the present time as C's `strftime`.
pub(super) fn format_now(format: &str) -> Result<String, Failure> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format_at(format, seconds)
}

/// Formats the time `seconds` after 1970-01-01 UTC.
fn format_at(format: &str, seconds: u64) -> Result<String, Failure> {
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let (year, month, day) = civil(days);
    let weekday = DAYS[usize::try_from((days + 3) % 7).unwrap_or(0)];
    let month_name = MONTHS[usize::try_from(month - 1).unwrap_or(0)];
    let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut kind = chars.next();
        let bare = kind == Some('-');
        if bare {
            kind = chars.next();
        }
        let two = |number: u64| if bare { number.to_string() } else { format!("{number:02}") };
        out.push_str(&match kind {
            Some('Y') => year.to_string(),
            Some('y') => two(year % 100),
            Some('m') => two(month),
            Some('d') => two(day),
            Some('e') => format!("{day:2}"),
            Some('H') => two(hour),
            Some('I') => two(twelve),
            Some('M') => two(minute),
            Some('S') => two(second),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_string(),
            Some('B') => month_name.to_string(),
            Some('b' | 'h') => month_name[..3].to_string(),
            Some('A') => weekday.to_string(),
            Some('a') => weekday[..3].to_string(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('j') => format!("{:03}", days - days_to(year) + 1),
            Some('Z') => "UTC".to_string(),
            Some('z') => "+0000".to_string(),
            Some('%') => "%".to_string(),
            _ => return Err(Failure::new("`strftime_now`: format is not supported")),
        });
    }
    Ok(out)
}

/// Days from 1970-01-01 to the first of `year`.
fn days_to(year: u64) -> u64 {
    let past = year - 1;
    let until = |year: u64| year * 365 + year / 4 - year / 100 + year / 400;
    until(past) - until(1969)
}

/// Year, month and day of the day `days` after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let mut year = 1970 + days / 366;
    while days_to(year + 1) <= days {
        year += 1;
    }
    let mut left = days - days_to(year);
    let leap = (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let february = if leap { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_known_times() {
        assert_eq!(format_at("%Y-%m-%d %H:%M:%S %a %j", 0).unwrap(), "1970-01-01 00:00:00 Thu 001");
        assert_eq!(format_at("%d %b %Y", 951_782_400).unwrap(), "29 Feb 2000");
        assert_eq!(format_at("%A %-d %B %I%p", 1_735_660_800).unwrap(), "Tuesday 31 December 04PM");
        assert!(format_at("%Q", 0).is_err());
    }
}
