"""Write the dashboards' files anew."""

from deploy.dashboards import write

write()
