//! Which application a record belongs to, and whether it may be charged to it.

use tollgate_rating::Service;
use tollgate_schema::v1;

use crate::texts;

/// The name of a service in reports and in the database.
pub fn service_name(service: Option<Service>) -> &'static str {
    service.map_or("unknown", Service::name)
}

/// The service of a name; `None` for one this version does not know.
pub fn service_named(name: &str) -> Option<Service> {
    [
        Service::Callback,
        Service::Notification,
        Service::Verification,
        Service::Playback,
        Service::PrivateAx,
        Service::PrivateAxb,
    ]
    .into_iter()
    .find(|service| service.name() == name)
}

/// The service that a record says it is of.
pub fn service_of(record: &v1::CallDetailRecord) -> Option<Service> {
    match record.service_type() {
        v1::ServiceType::Playback => Some(Service::Playback),
        v1::ServiceType::Callback => Some(Service::Callback),
        v1::ServiceType::PrivateAx => Some(Service::PrivateAx),
        v1::ServiceType::PrivateAxb => Some(Service::PrivateAxb),
        v1::ServiceType::Unspecified => None,
    }
}

/// An application of the customer at the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// The APP_Key its CDRs carry; what it is called in events, ledger and rates.
    pub app_key: String,
    /// What people call it; shown beside the key.
    pub name: String,
    /// Its service; `None` takes what each record says.
    pub service: Option<Service>,
}

/// The configured applications. Empty: every application is taken as it comes.
#[derive(Debug, Clone, Default)]
pub struct Applications(Vec<Application>);

/// To whom a record belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// APP_Key for ledger, reports and rates; whatever the edge found where it is not configured.
    pub application: String,
    /// Service for reports and rates; `None` when nobody says.
    pub service: Option<Service>,
    /// Whether the record must not be charged: its appKey is unknown, or another application's
    /// than the path's.
    pub mismatch: bool,
}

impl Applications {
    /// Takes the list as configured; keys are compared as records keep them.
    pub fn new(list: Vec<Application>) -> Self {
        let kept =
            |known: Application| Application { app_key: texts::short(known.app_key), ..known };
        Self(list.into_iter().map(kept).collect())
    }

    /// The name people gave to an APP_Key.
    pub fn name(&self, app_key: &str) -> Option<&str> {
        self.0.iter().find(|known| known.app_key == app_key).map(|known| known.name.as_str())
    }

    /// `sighted` is what the edge found: the APP_Key of the path's application, else the user
    /// name of the authentication header, else the record's appKey, else nothing.
    pub fn owner(&self, record: &v1::CallDetailRecord, sighted: &str) -> Owner {
        let said = service_of(record);
        let of_record = self.0.iter().find(|known| known.app_key == record.app_key);
        let (Some(own), false) = (of_record, self.0.is_empty()) else {
            let application = if sighted.is_empty() { &record.app_key } else { sighted };
            return Owner {
                application: application.to_owned(),
                service: said,
                mismatch: !self.0.is_empty(),
            };
        };
        let same = sighted.is_empty() || sighted == own.app_key;
        Owner {
            application: if same { &own.app_key } else { sighted }.to_owned(),
            service: own.service.or(said),
            mismatch: !same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> Applications {
        let app = |key: &str, name: &str| Application {
            app_key: key.to_owned(),
            name: name.to_owned(),
            service: (name == "shop").then_some(Service::Verification),
        };
        Applications::new(vec![app("key1", "shop"), app("key2", "bank")])
    }

    fn owner(
        applications: &Applications,
        app_key: &str,
        sighted: &str,
    ) -> (String, Option<Service>, bool) {
        let record = v1::CallDetailRecord {
            app_key: app_key.to_owned(),
            service_type: v1::ServiceType::Playback.into(),
            ..v1::CallDetailRecord::default()
        };
        let owner = applications.owner(&record, sighted);
        (owner.application, owner.service, owner.mismatch)
    }

    #[test]
    fn a_known_key_on_its_own_path_belongs_to_its_application() {
        for sighted in ["key1", ""] {
            let expected = ("key1".to_owned(), Some(Service::Verification), false);
            assert_eq!(owner(&shop(), "key1", sighted), expected, "{sighted}");
        }
        assert_eq!(
            owner(&shop(), "key2", "key2"),
            ("key2".to_owned(), Some(Service::Playback), false)
        );
    }

    #[test]
    fn an_unknown_key_or_another_path_is_a_mismatch() {
        assert!(owner(&shop(), "key9", "key1").2);
        assert!(owner(&shop(), "", "key1").2);
        assert!(owner(&shop(), "key1", "key2").2);
        assert!(owner(&shop(), "key1", "who").2);
    }

    #[test]
    fn a_key_longer_than_records_keep_is_still_its_applications() {
        let long = "k".repeat(1000);
        let own = Application { app_key: long.clone(), name: "shop".to_owned(), service: None };
        let kept = texts::short(long);
        assert!(!owner(&Applications::new(vec![own]), &kept, &kept).2);
    }

    #[test]
    fn without_configured_applications_everything_is_taken_as_it_comes() {
        let none = Applications::default();
        assert_eq!(
            owner(&none, "key9", "shop"),
            ("shop".to_owned(), Some(Service::Playback), false)
        );
        assert_eq!(owner(&none, "key9", ""), ("key9".to_owned(), Some(Service::Playback), false));
        assert_eq!(owner(&none, "", ""), (String::new(), Some(Service::Playback), false));
    }

    #[test]
    fn people_see_the_name_beside_the_key() {
        assert_eq!(shop().name("key2"), Some("bank"));
        assert_eq!(shop().name("key9"), None);
    }

    #[test]
    fn every_service_is_found_by_its_name() {
        for name in
            ["callback", "notification", "verification", "playback", "private_ax", "private_axb"]
        {
            assert_eq!(service_name(service_named(name)), name);
        }
        assert_eq!(service_named("fax"), None);
        assert_eq!(service_name(None), "unknown");
    }
}
